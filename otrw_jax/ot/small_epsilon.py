"""Entropic OT where epsilon is small beside the cost: where to start, and how to end."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Bool, Float

# An epsilon below this share of the range of the cost is approached from larger ones: from the
# second share of the range down, by the factor, an iteration each.
SMALL, _FIRST, _FACTOR = 1 / 50, 1 / 5, 0.95


def cost_range(
    cost: Float[Array, "n m"], rows: Bool[Array, "n"], columns: Bool[Array, "m"]
) -> Float[Array, ""]:
    """Largest cost less smallest, over the rows and columns that are present."""
    present = rows[:, None] & columns[None, :]
    highest = jnp.max(jnp.where(present, cost, -jnp.inf))
    return highest - jnp.min(jnp.where(present, cost, jnp.inf))


def plan_rounding(
    cost: Float[Array, "n m"],
    rows: Bool[Array, "n"],
    columns: Bool[Array, "m"],
    epsilon: float | Float[Array, ""],
) -> Float[Array, ""]:
    """What rounding may leave of the L1 error of a plan's marginals.

    The plan's exponents are differences of potentials and costs, each as large as the largest cost
    over epsilon: where all costs are alike, too.
    """
    present = rows[:, None] & columns[None, :]
    largest = jnp.max(jnp.where(present, jnp.abs(cost), 0.0))
    widest = jnp.maximum(cost_range(cost, rows, columns), largest)
    return jnp.finfo(cost.dtype).eps * (16 + widest / epsilon)


def annealed_start(
    a: Float[Array, "n"],
    cost: Float[Array, "n m"],
    b: Float[Array, "m"],
    epsilon: float,
    spread: Float[Array, ""],
) -> tuple[Float[Array, "n"], Float[Array, "m"]]:
    """Potentials to start Sinkhorn from: zero, or followed down to a small epsilon.

    Cold Sinkhorn at a small epsilon moves potentials by about epsilon an iteration, so that a cost
    of one takes 1 / epsilon of them (Schmitzer 2019, section 3.3, on epsilon-scaling).

    Args:
        a: row masses, positive, `[n]`.
        cost: `[n, m]`.
        b: column masses, positive, `[m]`.
        epsilon: that is aimed at, in units of the cost.
        spread: of `cost_range`.
    """
    a, cost, b, spread = jax.lax.stop_gradient((a, cost, b, spread))
    log_a, log_b = jnp.log(a), jnp.log(b)

    def follow(carry):
        now, f, _ = carry
        g = now * (log_b - logsumexp((f[:, None] - cost) / now, axis=0))
        f = now * (log_a - logsumexp((g[None, :] - cost) / now, axis=1))
        return now * _FACTOR, f, g

    zero = 0.0 * log_a, 0.0 * log_b
    first = jnp.where(epsilon < SMALL * spread, _FIRST * spread, epsilon)
    return jax.lax.while_loop(lambda carry: carry[0] > epsilon, follow, (first, *zero))[1:]


def rounded_to_marginals(
    plan: Float[Array, "n m"], a: Float[Array, "n"], b: Float[Array, "m"]
) -> Float[Array, "n m"]:
    """A plan near another with row sums `a` and column sums `b`: Altschuler et al. 2017, alg. 2."""
    plan = plan * jnp.minimum(1, _ratio(a, plan.sum(1)))[:, None]
    plan = plan * jnp.minimum(1, _ratio(b, plan.sum(0)))[None, :]
    left_a, left_b = jnp.maximum(a - plan.sum(1), 0), jnp.maximum(b - plan.sum(0), 0)
    return plan + left_a[:, None] * _ratio(left_b, jnp.sum(left_a))[None, :]


def _ratio(part, whole):
    return part / jnp.where(whole == 0, 1, whole)
