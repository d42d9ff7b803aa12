"""Per-example losses, and weights that depend on the class counts alone.

Every per-example loss has the signature of `PerExampleLoss`: it is not reduced, so that any
weighting of the examples can be applied to it.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Integer

from otrw_jax.checks import (
    AnyArray,
    Counts,
    check_counts,
    check_labels,
    check_number,
    check_shape,
)
from otrw_jax.classes import class_ids, is_class

PerExampleLoss = Callable[[Float[Array, "b k"], Int[Array, "b"]], Float[Array, "b"]]


def cross_entropy(
    logits: Float[AnyArray, "b k"], labels: Integer[AnyArray, "b"]
) -> Float[Array, "b"]:
    """Softmax cross-entropy of each example, in nats.

    Args:
        logits: unnormalised log-probabilities of the K classes; half precision is taken as float32.
        labels: true classes, in 0..K-1, of any integer type. Where they are traced, any other, such
            as -1 of padding, has the loss 0 and no gradient.

    Raises:
        ValueError: the shapes are not `[b k]` and `[b]`, or a label that is not traced is of no
            class.
    """
    check_shape("cross_entropy", "logits", logits, (None, None))
    check_shape("cross_entropy", "labels", labels, logits.shape[:1])
    check_labels("cross_entropy", labels, logits.shape[1])
    known, labels = is_class(labels, logits.shape[1]), jnp.asarray(labels, jnp.int32)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
        wide(logits), jnp.where(known, labels, 0)
    )
    return jnp.where(known, losses, jnp.zeros_like(losses))


def focal(gamma: float = 1.0) -> PerExampleLoss:
    """The focal loss, (1 - p_y)^γ times the cross-entropy, p the softmax of the logits.

    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 4, for K classes. γ = 0 is
    the cross-entropy. Class weights multiply what this returns; p knows nothing of them.

    Args:
        gamma: γ, at least 0; 1 in the program of LDAM.

    Raises:
        ValueError: `gamma` is negative or not finite.
    """
    check_number("focal", "gamma", gamma, least=0)

    def loss(logits, labels):
        plain = cross_entropy(logits, labels)
        if gamma == 0:
            return plain
        # 1 - p_y with its digits where p_y is near 1; a floor, as a power has no slope at 0.
        missing = jnp.maximum(-jnp.expm1(-plain), jnp.finfo(plain.dtype).tiny)
        return missing**gamma * plain

    return loss


def logit_adjusted(counts: Counts, tau: float = 1.0) -> PerExampleLoss:
    """Cross-entropy of logits to which τ log π is added, π the class frequencies.

    Menon et al., Long-tail Learning via Logit Adjustment, ICLR 2021, eq. 10; with τ = 1 balanced
    softmax (Ren et al., Balanced Meta-Softmax, NeurIPS 2020, eq. 4). In evaluation the logits are
    taken as they are. A class without examples drops out of the normaliser.

    Args:
        counts: training examples of each class, `[K]`, or their proportions.
        tau: τ.

    Raises:
        ValueError: a count is negative or not finite, or all are 0; τ is not finite; (from the
            loss) the logits are not of K classes, or as `cross_entropy`.
    """
    check_number("logit_adjusted", "tau", tau)
    prior = log_prior("logit_adjusted", counts)

    def loss(logits, labels):
        check_shape("logit_adjusted", "logits", logits, (None, *prior.shape))
        logits = wide(logits)
        return cross_entropy(logits + tau * jnp.asarray(prior, logits.dtype)[None, :], labels)

    return loss


def balanced_softmax(counts: Counts) -> PerExampleLoss:
    """`logit_adjusted` with τ = 1."""
    return logit_adjusted(counts, 1.0)


def ldam(counts: Counts, max_margin: float = 0.5, scale: float = 30.0) -> PerExampleLoss:
    """Label-distribution-aware margins: cross-entropy of s (z - Δ_y e_y).

    Δ_c ∝ n_c^(-1/4), scaled so that the largest is `max_margin`. Cao et al., Learning Imbalanced
    Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019, eqs. 10 and 13. The logits
    are to be cosines of features and class vectors (a cosine head).

    Args:
        counts: training examples of each class, `[K]`, or their proportions, none of which is 0
            then; a class without examples has the margin of one with a single example.
        max_margin: the margin of the rarest class.
        scale: s.

    Raises:
        ValueError: a count is negative or not finite, or all are 0; a proportion is 0; `max_margin`
            is negative, `scale` not positive, or one not finite; (from the loss) the logits are
            not of K classes, or as `cross_entropy`.
    """
    check_number("ldam", "max_margin", max_margin, least=0)
    check_number("ldam", "scale", scale, above=0)
    margins = _at_least_one_example("ldam", counts) ** -0.25
    margins = max_margin * margins / margins.max()

    def loss(logits, labels):
        check_shape("ldam", "logits", logits, (None, *margins.shape))
        logits = wide(logits)
        ids = class_ids(labels, logits.shape[-1])
        mine = jax.nn.one_hot(ids, logits.shape[-1], dtype=logits.dtype)
        of_class = jnp.asarray(margins, logits.dtype)[None, :]
        return cross_entropy(scale * (logits - of_class * mine), labels)

    return loss


def smoothed(loss: PerExampleLoss, epsilon: Float[AnyArray, "k"] | float) -> PerExampleLoss:
    """Label smoothing: (1 - ε_y) loss(z, y) + ε_y mean_c loss(z, c).

    Of the cross-entropy this is the cross-entropy to a target that keeps 1 - ε_y of its mass and
    spreads the rest over all K classes (Szegedy et al., Rethinking the Inception Architecture for
    Computer Vision, CVPR 2016, section 7).

    Args:
        loss: of which the labels are smoothed.
        epsilon: ε, one for all classes or one for each, `[K]` (`label_aware_smoothing`).

    Raises:
        ValueError: an ε is outside [0, 1); (from the loss) there is not one for each class.
    """
    epsilon = np.asarray(epsilon)
    if not (np.all(epsilon >= 0) and np.all(epsilon < 1)):
        raise ValueError(f"smoothed: epsilon is {epsilon}; it must lie in [0, 1).")

    def smooth(logits, labels):
        k = logits.shape[-1]
        if epsilon.ndim:
            check_shape("smoothed", "epsilon", epsilon, (k,))
        plain = loss(logits, labels)
        labels = jnp.asarray(labels, jnp.int32)
        share = jnp.broadcast_to(jnp.asarray(epsilon, plain.dtype), (k,))[labels]
        of_class = jax.vmap(lambda c: loss(logits, jnp.full_like(labels, c)))(
            jnp.arange(k, dtype=jnp.int32)
        )
        spread = jnp.where(is_class(labels, k), jnp.mean(of_class, axis=0), 0)
        return (1 - share) * plain + share * spread

    return smooth


def label_aware_smoothing(
    counts: Counts, head: float = 0.4, tail: float = 0.1
) -> Float[np.ndarray, "k"]:
    """ε of each class for `smoothed`, larger for classes with more examples.

    ε_c = tail + (head - tail) sin(π/2 (n_c - n_min) / (n_max - n_min)): Zhong et al., Improving
    Calibration for Long-Tailed Recognition, CVPR 2021, eq. 5, concave; 0.4 and 0.1 are theirs for
    CIFAR-100-LT of imbalance factor 100.

    Args:
        counts: training examples of each class, `[K]`, or their proportions.
        head: ε of the largest class.
        tail: ε of the smallest.

    Raises:
        ValueError: a count is negative or not finite, or all are 0; `head` or `tail` is outside
            [0, 1).
    """
    counts = np.asarray(counts, np.float64)
    check_counts("label_aware_smoothing", counts)
    for name, value in (("head", head), ("tail", tail)):
        check_number("label_aware_smoothing", name, value, least=0, below=1)
    spread = (counts.max() - counts.min()) or 1.0
    return tail + (head - tail) * np.sin(np.pi / 2 * (counts - counts.min()) / spread)


def inverse_frequency_weights(counts: Counts) -> Float[Array, "k"]:
    """Class weights in proportion to 1 / n_c, scaled so that they sum to K; 0 where n_c is 0.

    The "proportion" baseline of the paper's tables.

    Args:
        counts: training examples of each class, `[K]`, or their proportions.

    Raises:
        ValueError: a count is negative or not finite, or all are 0.
    """
    counts = np.asarray(counts, np.float64)
    check_counts("inverse_frequency_weights", counts)
    inverse = np.where(counts > 0, 1 / np.where(counts > 0, counts, 1), 0.0)
    return jnp.asarray(inverse * (counts.size / inverse.sum()), jnp.float32)


def effective_number_weights(counts: Counts, beta: float = 0.9999) -> Float[Array, "k"]:
    """Class weights in inverse proportion to the effective number of examples.

    w_c ∝ (1 - β) / (1 - β^{n_c}), scaled so that the weights sum to K: β = 0 weights all
    classes alike, β → 1 weights them by 1 / n_c. A class without examples has weight 0, and
    the others share the K.

    Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, eq. 2 and
    section 4.

    Args:
        counts: number of training examples of each class. Traced counts are not checked.
        beta: β, in [0, 1).

    Raises:
        ValueError: `beta` is outside [0, 1); the counts are not a vector, one is negative, not
            finite or a proportion, or all are 0.
    """
    check_number("effective_number_weights", "beta", beta, least=0, below=1)
    check_shape("effective_number_weights", "counts", counts, (None,))
    if not isinstance(counts, jax.core.Tracer):
        check_counts("effective_number_weights", counts, whole=True)
    n = jnp.asarray(counts, dtype=float)
    log_beta = math.log(beta) if beta > 0 else -math.inf
    # 1 - β cancels in the scaling; expm1 keeps the digits of 1 - β^n where β^n is near 1.
    effective_number = -jnp.expm1(jnp.maximum(n, 1) * log_beta)
    weights = jnp.where(n > 0, 1 / effective_number, 0)
    return weights * (n.size / weights.sum())


def log_prior(where: str, counts: Counts, *, single: bool = False) -> Float[np.ndarray, "k"]:
    """log π, π the class frequencies.

    Args:
        where: the function that the counts are given to.
        counts: training examples of each class, or their proportions.
        single: whether a class without examples counts as one with a single example; otherwise it
            has a number as low as float32 allows without an infinity.

    Raises:
        ValueError: a count is negative or not finite, or all are 0; with `single`, a proportion
            is 0.
    """
    if single:
        total = np.asarray(counts, np.float64).sum()
        return np.log(_at_least_one_example(where, counts) / total)
    counts = np.asarray(counts, np.float64)
    check_counts(where, counts)
    prior = np.log(np.where(counts > 0, counts, 1) / counts.sum())
    return np.where(counts > 0, prior, -1e30)


def wide(logits: Float[AnyArray, "b k"]) -> Float[Array, "b k"]:
    """Logits in float32, or wider if they are."""
    logits = jnp.asarray(logits)
    is_wide = jnp.issubdtype(logits.dtype, jnp.floating) and logits.dtype.itemsize >= 4
    return logits if is_wide else logits.astype(jnp.float32)


def _at_least_one_example(where: str, counts: Counts) -> np.ndarray:
    """Counts, with 1 for 0, or proportions, of which none may be 0."""
    counts = np.asarray(counts, np.float64)
    check_counts(where, counts)
    if (counts == 0).any():
        check_counts(where, counts, whole=True)
    return np.where(counts > 0, counts, 1)
