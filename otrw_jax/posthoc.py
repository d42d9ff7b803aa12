"""Corrections of logits after training: by the class frequencies, and by optimal transport."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from otrw_jax.checks import AnyArray, Counts, check_counts, check_number, check_shape
from otrw_jax.losses import log_prior, wide
from otrw_jax.ot.entropic import EntropicOT, transport

# -log of the smallest normal float32: the cost of a probability that is smaller, or 0.
_LARGEST_COST = float(-np.log(np.finfo(np.float32).tiny))


def adjust_logits(
    logits: Float[AnyArray, "n k"], counts: Counts, tau: float = 1.0
) -> Float[Array, "n k"]:
    """Returns z - τ log π, π the class frequencies of the training set.

    Menon et al., Long-tail Learning via Logit Adjustment, ICLR 2021, eq. 9: a network trained on
    cross-entropy made to serve balanced classes. Each example is corrected alone. A class without
    examples is raised like one with a single example, not to infinity.

    Args:
        logits: of a network trained on the plain cross-entropy.
        counts: training examples of each class, `[K]`, or their proportions, none of which is 0
            then.
        tau: τ.

    Raises:
        ValueError: a count is negative or not finite, or all are 0; a proportion is 0; τ is not
            finite; the logits are not of K classes.
    """
    check_number("adjust_logits", "tau", tau)
    prior = log_prior("adjust_logits", counts, single=True)
    check_shape("adjust_logits", "logits", logits, (None, *prior.shape))
    given, logits = logits, wide(logits)
    return _like(given, logits - tau * jnp.asarray(prior, logits.dtype)[None, :])


def ot_correction(
    logits: Float[AnyArray, "n k"],
    marginal: Real[AnyArray, "k"] | None = None,
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
        ValueError: the logits are no matrix, `marginal` is not K finite numbers of at least 0 with
            a positive sum, or `epsilon` or `iterations` is not positive.
    """
    check_number("ot_correction", "epsilon", epsilon, above=0)
    check_number("ot_correction", "iterations", iterations, least=1, whole=True)
    check_shape("ot_correction", "logits", logits, (None, None))
    given, logits = logits, wide(logits)
    n, k = logits.shape
    marginal = np.ones(k) if marginal is None else np.asarray(marginal, np.float64)
    check_shape("ot_correction", "marginal", marginal, (k,))
    check_counts("ot_correction", marginal, name="marginal")
    marginal = jnp.asarray(marginal / marginal.sum(), logits.dtype)
    cost = jnp.minimum(-jax.nn.log_softmax(logits, axis=-1), _LARGEST_COST)
    ot = EntropicOT(epsilon=epsilon, max_iterations=iterations)
    g = transport(jnp.full((n,), 1 / n, logits.dtype), cost, marginal, ot=ot).g
    # The plan is exp((f + g - cost) / ε); f falls out of a row that is scaled to sum to one. The
    # largest entry is taken off before the division, whose rounding a compiler may do in two ways.
    rows = jnp.where(marginal[None, :] > 0, g[None, :] - cost, -1e30)
    rows = (rows - jnp.max(rows, axis=-1, keepdims=True)) / epsilon
    return _like(given, jax.nn.log_softmax(rows, axis=-1))


def _like(given: Float[AnyArray, "n k"], logits: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """The logits in the type of those that were given, where that is a floating one."""
    floating = jnp.issubdtype(given.dtype, jnp.floating)
    return logits.astype(given.dtype) if floating else logits
