"""Per-example losses, and weights that depend on the class counts alone.

Every per-example loss has the signature of `PerExampleLoss`: it is not reduced, so that any
weighting of the examples can be applied to it.
"""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Real

PerExampleLoss = Callable[[Float[Array, "b k"], Int[Array, "b"]], Float[Array, "b"]]


def cross_entropy(logits: Float[Array, "b k"], labels: Int[Array, "b"]) -> Float[Array, "b"]:
    """Softmax cross-entropy of each example, in nats.

    Args:
        logits: unnormalised log-probabilities of the K classes.
        labels: true classes, in 0..K-1; not checked.

    Raises:
        AssertionError: the shapes are not `[b k]` and `[b]`.
    """
    chex.assert_rank(logits, 2)
    chex.assert_shape(labels, (logits.shape[0],))
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def focal(gamma: float = 1.0) -> PerExampleLoss:
    """The focal loss, (1 - p_y)^γ times the cross-entropy, p the softmax of the logits.

    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 4, for K classes. γ = 0 is
    the cross-entropy. Class weights multiply what this returns; p knows nothing of them.

    Args:
        gamma: γ, at least 0; 1 in the program of LDAM.

    Raises:
        ValueError: `gamma` is negative.
    """
    if not gamma >= 0:
        raise ValueError(f"focal: gamma is {gamma}; it must be 0 or more.")

    def loss(logits, labels):
        plain = cross_entropy(logits, labels)
        if gamma == 0:
            return plain
        # 1 - p_y with its digits where p_y is near 1; a floor, as a power has no slope at 0.
        missing = jnp.maximum(-jnp.expm1(-plain), jnp.finfo(logits.dtype).tiny)
        return missing**gamma * plain

    return loss


def logit_adjusted(counts: Real[Array | np.ndarray, "k"], tau: float = 1.0) -> PerExampleLoss:
    """Cross-entropy of logits to which τ log π is added, π the class frequencies.

    Menon et al., Long-tail Learning via Logit Adjustment, ICLR 2021, eq. 10; with τ = 1 balanced
    softmax (Ren et al., Balanced Meta-Softmax, NeurIPS 2020, eq. 4). In evaluation the logits are
    taken as they are. A class without examples drops out of the normaliser.

    Args:
        counts: training examples of each class, `[K]`.
        tau: τ.

    Raises:
        ValueError: a count is negative or not finite, or all are 0.
    """
    prior = _log_prior(counts)

    def loss(logits, labels):
        return cross_entropy(logits + tau * prior[None, :], labels)

    return loss


def balanced_softmax(counts: Real[Array | np.ndarray, "k"]) -> PerExampleLoss:
    """`logit_adjusted` with τ = 1."""
    return logit_adjusted(counts, 1.0)


def ldam(
    counts: Real[Array | np.ndarray, "k"], max_margin: float = 0.5, scale: float = 30.0
) -> PerExampleLoss:
    """Label-distribution-aware margins: cross-entropy of s (z - Δ_y e_y).

    Δ_c ∝ n_c^(-1/4), scaled so that the largest is `max_margin`. Cao et al., Learning Imbalanced
    Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019, eqs. 10 and 13. The logits
    are to be cosines of features and class vectors (a cosine head).

    Args:
        counts: training examples of each class, `[K]`; one without examples has the margin of a
            class with one.
        max_margin: the margin of the rarest class.
        scale: s.

    Raises:
        ValueError: a count is negative or not finite, or all are 0.
    """
    check_counts(np.asarray(counts))
    margins = np.maximum(np.asarray(counts, np.float64), 1) ** -0.25
    margins = jnp.asarray(max_margin * margins / margins.max(), jnp.float32)

    def loss(logits, labels):
        mine = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        return cross_entropy(scale * (logits - margins[None, :] * mine), labels)

    return loss


def smoothed(
    loss: PerExampleLoss, epsilon: Float[Array | np.ndarray, "k"] | float
) -> PerExampleLoss:
    """Label smoothing: (1 - ε_y) loss(z, y) + ε_y mean_c loss(z, c).

    Of the cross-entropy this is the cross-entropy to a target that keeps 1 - ε_y of its mass and
    spreads the rest over all K classes (Szegedy et al., Rethinking the Inception Architecture for
    Computer Vision, CVPR 2016, section 7).

    Args:
        loss: of which the labels are smoothed.
        epsilon: ε, one for all classes or one for each, `[K]` (`label_aware_smoothing`).

    Raises:
        ValueError: an ε is outside [0, 1).
    """
    if not (np.all(np.asarray(epsilon) >= 0) and np.all(np.asarray(epsilon) < 1)):
        raise ValueError(f"smoothed: epsilon is {epsilon}; it must lie in [0, 1).")

    def smooth(logits, labels):
        k = logits.shape[-1]
        share = jnp.broadcast_to(jnp.asarray(epsilon, logits.dtype), (k,))[labels]
        of_class = jax.vmap(lambda c: loss(logits, jnp.full_like(labels, c)))(jnp.arange(k))
        return (1 - share) * loss(logits, labels) + share * jnp.mean(of_class, axis=0)

    return smooth


def label_aware_smoothing(
    counts: Real[Array | np.ndarray, "k"], head: float = 0.4, tail: float = 0.1
) -> Float[np.ndarray, "k"]:
    """ε of each class for `smoothed`, larger for classes with more examples.

    ε_c = tail + (head - tail) sin(π/2 (n_c - n_min) / (n_max - n_min)): Zhong et al., Improving
    Calibration for Long-Tailed Recognition, CVPR 2021, eq. 5, concave; 0.4 and 0.1 are theirs for
    CIFAR-100-LT of imbalance factor 100.

    Args:
        counts: training examples of each class, `[K]`.
        head: ε of the largest class.
        tail: ε of the smallest.

    Raises:
        ValueError: a count is negative or not finite, or all are 0.
    """
    counts = np.asarray(counts, np.float64)
    check_counts(counts)
    spread = max(counts.max() - counts.min(), 1.0)
    return tail + (head - tail) * np.sin(np.pi / 2 * (counts - counts.min()) / spread)


def inverse_frequency_weights(counts: Real[Array | np.ndarray, "k"]) -> Float[Array, "k"]:
    """Class weights in proportion to 1 / n_c, scaled so that they sum to K; 0 where n_c is 0.

    The "proportion" baseline of the paper's tables.

    Args:
        counts: training examples of each class, `[K]`.

    Raises:
        ValueError: a count is negative or not finite, or all are 0.
    """
    counts = np.asarray(counts, np.float64)
    check_counts(counts)
    inverse = np.where(counts > 0, 1 / np.maximum(counts, 1), 0.0)
    return jnp.asarray(inverse * (counts.size / inverse.sum()), jnp.float32)


def effective_number_weights(
    counts: Real[Array | np.ndarray, "k"], beta: float = 0.9999
) -> Float[Array, "k"]:
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
        ValueError: `beta` is outside [0, 1), a count is negative or not finite, or all are 0.
        AssertionError: `counts` is not a vector.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta is {beta}; it must lie in [0, 1), for example 0.9999.")
    if not isinstance(counts, jax.core.Tracer):
        check_counts(np.asarray(counts))
    n = jnp.asarray(counts, dtype=float)
    chex.assert_rank(n, 1)
    log_beta = math.log(beta) if beta > 0 else -math.inf
    # 1 - β cancels in the scaling; expm1 keeps the digits of 1 - β^n where β^n is near 1.
    effective_number = -jnp.expm1(jnp.maximum(n, 1) * log_beta)
    weights = jnp.where(n > 0, 1 / effective_number, 0)
    return weights * (n.size / weights.sum())


def check_counts(counts: Real[np.ndarray, "k"]) -> None:
    """Raises ValueError where counts of examples cannot be, or no class has any."""
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise ValueError(f"class counts must be finite and at least 0; they are {counts}.")
    if not counts.any():
        raise ValueError("all class counts are 0: there is no class to weight.")


def _log_prior(counts):
    counts = np.asarray(counts, np.float64)
    check_counts(counts)
    # Where there is no example, as low as float32 allows without an infinity.
    prior = np.log(np.maximum(counts, 1) / counts.sum())
    return jnp.asarray(np.where(counts > 0, prior, -1e30), jnp.float32)
