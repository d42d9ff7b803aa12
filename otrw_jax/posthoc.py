"""Corrections of logits after training: by the class frequencies, and by optimal transport."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from otrw_jax.losses import check_counts
from otrw_jax.ot.transport import EntropicOT, transport

# -log of the smallest normal float32: the cost of a probability that is smaller, or 0.
_LARGEST_COST = float(-np.log(np.finfo(np.float32).tiny))


def adjust_logits(
    logits: Float[Array, "n k"], counts: Real[Array | np.ndarray, "k"], tau: float = 1.0
) -> Float[Array, "n k"]:
    """Returns z - τ log π, π the class frequencies of the training set.

    Menon et al., Long-tail Learning via Logit Adjustment, ICLR 2021, eq. 9: a network trained on
    cross-entropy made to serve balanced classes. Each example is corrected alone. A class without
    examples is raised like one with a single example, not to infinity.

    Args:
        logits: of a network trained on the plain cross-entropy.
        counts: training examples of each class, `[K]`.
        tau: τ.

    Raises:
        ValueError: a count is negative or not finite, or all are 0.
    """
    counts = np.asarray(counts, np.float64)
    check_counts(counts)
    log_prior = np.log(np.maximum(counts, 1) / counts.sum())
    return logits - tau * jnp.asarray(log_prior, logits.dtype)[None, :]


def ot_correction(
    logits: Float[Array, "n k"],
    marginal: Real[Array | np.ndarray, "k"] | None = None,
    *,
    epsilon: float = 1.0,
    iterations: int = 1000,
) -> Float[Array, "n k"]:
    """Log-probabilities whose mean over the examples is a given distribution of the classes.

    The entropic plan between the n examples, each of mass 1/n, and the classes, of mass
    `marginal`, at the cost -log p, p the softmax of the logits; returned are the logarithms of its
    rows, each scaled to sum to one. Peng et al., Optimal Transport for Long-Tailed Recognition with
    Learnable Cost Matrix, ICLR 2022: their method with a fixed cost.

    Transductive: an example's result depends on the other examples that are corrected with it, and
    the true distribution of their classes is used. Figures obtained with it are not to be compared
    with those of methods that see one test example at a time.

    With ε = 1, the default, a row is the softmax of the logits plus one offset a class. Where p is
    the posterior of the training distribution and the classes of the examples follow `marginal`,
    the offsets tend to log(marginal / π) as n grows: the Bayes rule for the new distribution,
    `adjust_logits` with τ = 1 where it is uniform, without a need of the class frequencies π.
    Smaller ε sharpen the rows, down to an assignment of exactly n marginal_c examples to each
    class, and take more iterations.

    Args:
        logits: of all examples that are evaluated together. A probability below the smallest
            normal float32 counts as that.
        marginal: mass of each class, scaled here to sum to one; uniform by default. A class of mass
            0 is never chosen.
        epsilon: entropic regularisation ε, in nats.
        iterations: bound on the Sinkhorn iterations. Rows are exact whatever it is; it is the
            classes' masses that are approached.

    Raises:
        ValueError: `marginal` is not K finite numbers of at least 0 with a positive sum, or
            `epsilon` or `iterations` is not positive.
    """
    n, k = logits.shape
    marginal = np.ones(k) if marginal is None else np.asarray(marginal, np.float64)
    if marginal.shape != (k,):
        raise ValueError(f"ot_correction: marginal has shape {marginal.shape}; it must be ({k},).")
    check_counts(marginal)
    marginal = jnp.asarray(marginal / marginal.sum(), logits.dtype)
    cost = jnp.minimum(-jax.nn.log_softmax(logits, axis=-1), _LARGEST_COST)
    ot = EntropicOT(epsilon=epsilon, max_iterations=iterations)
    g = transport(jnp.full((n,), 1 / n, logits.dtype), cost, marginal, ot=ot).g
    # The plan is exp((f + g - cost) / ε); f falls out of a row that is scaled to sum to one.
    rows = (g[None, :] - cost) / epsilon
    return jax.nn.log_softmax(jnp.where(marginal[None, :] > 0, rows, -1e30), axis=-1)
