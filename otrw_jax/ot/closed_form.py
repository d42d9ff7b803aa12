"""Optimal weights of the regularised problem, in closed form."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Real

from otrw_jax.checks import AnyArray, check_number
from otrw_jax.ot.arrays import (
    float_dtype,
    require_masses,
    require_shapes,
    working,
)


def optimal_weights(
    cost: Real[AnyArray, "n m"],
    meta_weights: Float[AnyArray, "m"] | None = None,
    *,
    epsilon: float | Float[Array, ""] = 0.1,
    mask: Float[AnyArray, "n"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "n"]:
    """Minimises `<C, T> - epsilon H(T)` over the weights and the plan together.

    With the weights free, the row marginal of the plan is free, and the minimiser is
    `w_i = sum_j b_j softmax_i(-C_ij / epsilon)`, the softmax running over the training examples:
    no iterations, O(n m), exact. `n` may be the whole training set.

    Args:
        cost: `[n, m]`; with `axis_name`, this device's rows.
        meta_weights: probability of each meta atom, `[m]`; uniform by default.
        epsilon: entropic regularisation, in units of the cost; a number, or a traced one.
        mask: 1 for an example and 0 for padding, `[n]`; padded rows get weight zero.
        axis_name: mapped axis over which the rows are spread; one reduction of `[m]` numbers each
            for the maximum and the sum.

    Returns:
        Weights `[n]`, non-negative, summing to the mass of `meta_weights` over all devices, in the
        cost's dtype (computed in float32 or wider). A NaN in the cost or the meta weights makes all
        of them NaN.

    Raises:
        ValueError: shapes that do not fit, an `epsilon` that is not positive, or negative masses.
    """
    require_shapes("optimal_weights", cost=(cost, "n m"))
    m = jnp.shape(cost)[1]
    result = float_dtype(cost)
    cost = jnp.asarray(cost, working(cost))
    if meta_weights is None:
        meta_weights = jnp.full((m,), 1 / m, cost.dtype)
    require_shapes("optimal_weights", cost=(cost, "n m"), meta_weights=(meta_weights, "m"))
    epsilon, meta_weights = _checked("optimal_weights", epsilon, meta_weights, cost.dtype)
    scores = -cost / epsilon
    if mask is not None:
        require_shapes("optimal_weights", cost=(cost, "n m"), mask=(mask, "n"))
        scores = jnp.where(jnp.asarray(mask)[:, None] > 0, scores, -jnp.inf)
    shift = jax.lax.stop_gradient(jnp.max(scores, axis=0))
    if axis_name is not None:
        shift = jax.lax.pmax(shift, axis_name)
    kernel = jnp.exp(scores - shift[None, :])
    total = jnp.sum(kernel, axis=0)
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    return jnp.matmul(kernel, meta_weights / total, precision="highest").astype(result)


def optimal_weights_by_rows(
    cost_of_rows: Callable[[Int[Array, "r"]], Float[Array, "r m"]],
    count: int,
    meta_weights: Float[AnyArray, "m"],
    *,
    epsilon: float | Float[Array, ""] = 0.1,
    mask: Float[AnyArray, "n"] | None = None,
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
        epsilon: as in `optimal_weights`.
        mask: 1 for an example and 0 for padding, `[n]`.
        axis_name: as in `optimal_weights`.
        rows: how many rows at a time.

    Raises:
        ValueError: as `optimal_weights`, or `count` or `rows` below 1.
    """
    if count < 1 or rows < 1:
        raise ValueError(
            f"optimal_weights_by_rows: count is {count} and rows {rows}; both must be at least 1."
        )
    require_shapes("optimal_weights_by_rows", meta_weights=(meta_weights, "m"))
    of_rows = jax.eval_shape(cost_of_rows, jax.ShapeDtypeStruct((1,), jnp.int32))
    result, dtype = float_dtype(of_rows), working(of_rows)
    epsilon, meta_weights = _checked("optimal_weights_by_rows", epsilon, meta_weights, dtype)
    rows = min(rows, count)
    chunks = -(-count // rows)
    present = jnp.arange(chunks * rows) < count
    ids = jnp.minimum(jnp.arange(chunks * rows), count - 1)
    if mask is not None:
        if jnp.shape(mask) != (count,):
            raise ValueError(
                f"optimal_weights_by_rows: mask has the shape {jnp.shape(mask)}; it must be "
                f"[{count}], one entry an example."
            )
        present = present & (jnp.asarray(mask)[ids] > 0)
    parts = ids.reshape(chunks, rows), present.reshape(chunks, rows)

    def scores(part):
        ids, present = part
        return jnp.where(present[:, None], -cost_of_rows(ids).astype(dtype) / epsilon, -jnp.inf)

    def add(carry, part):
        shift, total = carry
        s = scores(part)
        higher = jnp.maximum(shift, jnp.max(s, axis=0))
        rescaled = total * jnp.exp(shift - higher)
        return (higher, rescaled + jnp.sum(jnp.exp(s - higher[None, :]), axis=0)), None

    m = meta_weights.shape[0]
    # The lowest finite number, since the difference of two infinities is not a number.
    start = jnp.full((m,), jnp.finfo(dtype).min, dtype), jnp.zeros((m,), dtype)
    # The first part outside of the scan, whose carry then varies over the axes that the cost does.
    start, _ = add(start, jax.tree.map(lambda x: x[0], parts))
    (shift, total), _ = jax.lax.scan(add, start, jax.tree.map(lambda x: x[1:], parts))
    if axis_name is not None:
        highest = jax.lax.pmax(shift, axis_name)
        total = jax.lax.psum(total * jnp.exp(shift - highest), axis_name)
        shift = highest

    def weights(part):
        kernel = jnp.exp(scores(part) - shift[None, :])
        return jnp.matmul(kernel, meta_weights / total, precision="highest")

    return jax.lax.map(weights, parts).reshape(chunks * rows)[:count].astype(result)


def _checked(where, epsilon, meta_weights, dtype):
    """Epsilon, NaN where it is traced and not positive, and the masses, in a dtype."""
    check_number(where, "epsilon", epsilon, above=0)
    require_masses(where, None, meta_weights)
    if isinstance(epsilon, jax.Array):
        epsilon = jnp.where(epsilon > 0, epsilon, jnp.nan).astype(dtype)
    return epsilon, jnp.asarray(meta_weights).astype(dtype)
