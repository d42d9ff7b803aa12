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
        raise ValueError(f"beta is {beta}; it must lie in [0, 1), for example 0.9999")
    chex.assert_rank(counts, 1)
    if not isinstance(counts, jax.core.Tracer):
        _check_counts(np.asarray(counts))
    n = jnp.asarray(counts, dtype=float)
    log_beta = math.log(beta) if beta > 0 else -math.inf
    # 1 - β cancels in the scaling; expm1 keeps the digits of 1 - β^n where β^n is near 1.
    effective_number = -jnp.expm1(jnp.maximum(n, 1) * log_beta)
    weights = jnp.where(n > 0, 1 / effective_number, 0)
    return weights * (n.size / weights.sum())


def _check_counts(counts: Real[np.ndarray, "k"]) -> None:
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise ValueError(f"class counts must be finite and at least 0; they are {counts}")
    if not counts.any():
        raise ValueError("all class counts are 0: there is no class to weight")
