"""Optimal weights of the regularised problem, in closed form."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


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


def optimal_weights_by_rows(
    cost_of_rows: Callable[[Int[Array, "r"]], Float[Array, "r m"]],
    count: int,
    meta_weights: Float[Array, "m"],
    *,
    epsilon: float = 0.1,
    mask: Float[Array, "n"] | None = None,
    axis_name: str | None = None,
    rows: int = 8192,
) -> Float[Array, "n"]:
    """`optimal_weights` without the whole cost: in memory O(rows m) instead of O(n m).

    Goes over the examples twice, some rows of the cost at a time: once for the normaliser of
    each column's softmax, once for the weights.

    Args:
        cost_of_rows: from numbers of examples `[r]` to their costs `[r, m]`.
        count: number of examples n; with `axis_name`, of this device.
        meta_weights: probability of each meta atom, `[m]`.
        epsilon: entropic regularisation, in units of the cost.
        mask: 1 for an example and 0 for padding, `[n]`.
        axis_name: as in `optimal_weights`.
        rows: how many rows at a time.
    """
    rows = min(rows, count)
    chunks = -(-count // rows)
    present = jnp.arange(chunks * rows) < count
    ids = jnp.minimum(jnp.arange(chunks * rows), count - 1)
    if mask is not None:
        chex.assert_shape(mask, (count,))
        present = present & (jnp.asarray(mask)[ids] > 0)
    parts = ids.reshape(chunks, rows), present.reshape(chunks, rows)

    def scores(part):
        ids, present = part
        return jnp.where(present[:, None], -cost_of_rows(ids) / epsilon, -jnp.inf)

    def add(carry, part):
        shift, total = carry
        s = scores(part)
        higher = jnp.maximum(shift, jnp.max(s, axis=0))
        rescaled = total * jnp.exp(shift - higher)
        return (higher, rescaled + jnp.sum(jnp.exp(s - higher[None, :]), axis=0)), None

    m = meta_weights.shape[0]
    # The lowest finite number, since the difference of two infinities is not a number.
    start = jnp.full((m,), jnp.finfo(jnp.float32).min), jnp.zeros((m,))
    (shift, total), _ = jax.lax.scan(add, start, parts)
    if axis_name is not None:
        highest = jax.lax.pmax(shift, axis_name)
        total = jax.lax.psum(total * jnp.exp(shift - highest), axis_name)
        shift = highest

    def weights(part):
        kernel = jnp.exp(scores(part) - shift[None, :])
        return jnp.matmul(kernel, meta_weights / total, precision="highest")

    return jax.lax.map(weights, parts).reshape(chunks * rows)[:count]
