"""Optimal weights of the regularised problem, in closed form."""

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def optimal_weights(
    cost: Float[Array, "n m"],
    meta_weights: Float[Array, "m"] | None = None,
    *,
    epsilon: float = 0.1,
    mask: Float[Array, "n"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "n"]:
    """Minimises `<C, T> - epsilon H(T)` over the weights and the plan together.

    With the weights free, the row marginal of the plan is free, and the minimiser is
    `w_i = sum_j b_j softmax_i(-C_ij / epsilon)`, the softmax running over the training examples:
    no iterations, O(n m), exact. `n` may be the whole training set.

    Args:
        cost: `[n, m]`; with `axis_name`, this device's rows.
        meta_weights: probability of each meta atom, `[m]`; uniform by default.
        epsilon: entropic regularisation, in units of the cost.
        mask: 1 for an example and 0 for padding, `[n]`; padded rows get weight zero.
        axis_name: mapped axis over which the rows are spread; one reduction of `[m]` numbers each
            for the maximum and the sum.

    Returns:
        Weights `[n]`, non-negative, summing to the mass of `meta_weights` over all devices.
    """
    chex.assert_rank(cost, 2)
    n, m = cost.shape
    if not epsilon > 0:
        raise ValueError(f"optimal_weights: epsilon is {epsilon}; it must be positive.")
    if meta_weights is None:
        meta_weights = jnp.full((m,), 1 / m, cost.dtype)
    chex.assert_shape(meta_weights, (m,))
    scores = -cost / epsilon
    if mask is not None:
        chex.assert_shape(mask, (n,))
        scores = jnp.where(jnp.asarray(mask)[:, None] > 0, scores, -jnp.inf)
    shift = jax.lax.stop_gradient(jnp.max(scores, axis=0))
    if axis_name is not None:
        shift = jax.lax.pmax(shift, axis_name)
    kernel = jnp.exp(scores - shift[None, :])
    total = jnp.sum(kernel, axis=0)
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    return jnp.matmul(kernel, meta_weights / total, precision="highest")
