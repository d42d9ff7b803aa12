"""Newton's method on the dual of the smaller side, for problems that Sinkhorn is slow on.

With the larger side's potential eliminated, the dual is a concave function of the smaller side's,
`D(g) = <a, f(g)> + <b, g>`. Its gradient is what the columns' marginal lacks, its Hessian the graph
Laplacian that the implicit gradient is solved with (`saddle.py`), over epsilon.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Bool, Float, Int

from otrw_jax.ot.saddle import links_of, solve_laplacian
from otrw_jax.ot.small_epsilon import SMALL, cost_range, plan_rounding

MOST_STEPS = 100
# Where the marginals are off by more than `_NEAR`, epsilon is followed down from this share of the
# cost's range, by the factor, once they are off by less.
_NEAR, _FIRST, _FACTOR = 1e-2, 1 / 10, 1 / 2
# Moves tried at a step: of Newton (0) or Sinkhorn (1), the second over-relaxed by a scale, and each
# potential's bounded, in units of epsilon.
_MOVES = (*((0, 1.0, bound) for bound in (60.0, 16.0, 8.0, 4.0, 2.0, 1.0)),)
_MOVES += tuple((1, scale, 60.0) for scale in (1.0, 1.5, 1.9))
_OF, _SCALES, _BOUNDS = zip(*_MOVES, strict=True)
# The error below which moves are chosen by the error they leave, and not by the dual's gain, whose
# rounding is the larger one there.
_BY_ERROR = 1e-3
# A share of the mass below which a row or column says nothing of the range of the cost.
_NO_MASS = 1e-15


class Finished(NamedTuple):
    """Potentials of both sides and the Newton steps taken."""

    f: Float[Array, "n"]
    g: Float[Array, "m"]
    steps: Int[Array, ""]


class _State(NamedTuple):
    g: Float[Array, "m"]
    epsilon: Float[Array, ""]
    error: Float[Array, ""]
    steps: Int[Array, ""]
    going: Bool[Array, ""]


def finish(
    f: Float[Array, "n"],
    g: Float[Array, "m"],
    a: Float[Array, "n"],
    cost: Float[Array, "n m"],
    b: Float[Array, "m"],
    error: Float[Array, ""],
    *,
    epsilon: float | Float[Array, ""],
    threshold: float | Float[Array, ""],
) -> Finished:
    """Takes potentials that did not converge to convergence, or leaves them as they are.

    What converged is returned bit for bit; under `jax.vmap` a batch of such problems runs no step.
    Potentials are replaced only where the marginals come nearer to the wanted ones.

    Args:
        f: of the rows, `[n]`.
        g: of the columns, `[m]`.
        a: row masses, positive, `[n]`.
        cost: `[n, m]`.
        b: column masses, positive, `[m]`.
        error: L1 error of the marginals with these potentials.
        epsilon: in units of the cost.
        threshold: L1 error of the marginals that is aimed at.
    """
    if cost.shape[0] < cost.shape[1]:
        solved = finish(g, f, b, cost.T, a, error, epsilon=epsilon, threshold=threshold)
        return Finished(solved.g, solved.f, solved.steps)
    mass = jnp.sum(a)
    present = a > _NO_MASS * mass, b > _NO_MASS * mass
    spread, rounding = cost_range(cost, *present), plan_rounding(cost, *present, epsilon)
    near = (error <= _NEAR * mass) & (epsilon >= SMALL * spread)
    first = _State(
        g=jnp.where(near, g, 0.0),
        epsilon=jnp.where(near, epsilon, jnp.maximum(epsilon, _FIRST * spread)),
        error=error + jnp.inf,
        steps=(0 * error).astype(jnp.int32),
        going=error > threshold + rounding,
    )
    needed = first.going
    shares = a / mass, b / jnp.sum(b)
    last = jax.lax.while_loop(
        lambda state: state.going,
        lambda state: _step(state, cost, *shares, epsilon, threshold / mass, rounding),
        first,
    )

    def marginal_error(f, g):
        plan = jnp.exp((f[:, None] + g[None, :] - cost) / epsilon)
        return jnp.sum(jnp.abs(plan.sum(1) - a)) + jnp.sum(jnp.abs(plan.sum(0) - b))

    def sweep(carry):
        # An iteration of Sinkhorn more, which gives masses next to nothing their potentials too.
        rows = epsilon * (jnp.log(a) - logsumexp((last.g[None, :] - cost) / epsilon, axis=1))
        columns = epsilon * (jnp.log(b) - logsumexp((rows[:, None] - cost) / epsilon, axis=0))
        better = marginal_error(rows, columns) < marginal_error(*carry[:2])
        f, g = (jnp.where(better, *pair) for pair in ((rows, carry[0]), (columns, carry[1])))
        return f, g, jnp.zeros_like(needed)

    f, g, _ = jax.lax.while_loop(lambda carry: carry[2], sweep, (f, g, needed))
    return Finished(f, g, last.steps)


def _step(state, cost, a, b, epsilon, threshold, rounding):
    """One step at the state's epsilon, and the next epsilon."""
    conditional = jax.nn.softmax((state.g[None, :] - cost) / state.epsilon, axis=1)
    columns = jnp.matmul(a, conditional, precision="highest")
    error = jnp.sum(jnp.abs(columns - b))
    moves = _moves(conditional, columns, a, b)
    errors, gains = _merits(moves, conditional, a, b)
    by_error = error < _BY_ERROR
    chosen = jnp.where(by_error, jnp.argmin(errors), jnp.argmax(gains))
    better = jnp.where(by_error, errors[chosen] < error, gains[chosen] > 0)
    left = jnp.where(better, errors[chosen], error)
    at_last = state.epsilon <= epsilon
    smaller = jnp.maximum(_FACTOR * state.epsilon, epsilon)
    steps = state.steps + 1
    # Within the rounding of a plan, steps go on as long as they halve the error.
    done = (left <= threshold) | ~better | ((left <= threshold + rounding) & (left > 0.5 * error))
    return _State(
        g=jnp.where(better, state.g + state.epsilon * moves[:, chosen], state.g),
        epsilon=jnp.where((left <= _NEAR) | ~better, smaller, state.epsilon),
        error=jnp.where(at_last, left, jnp.inf),
        steps=steps,
        going=(steps < MOST_STEPS) & ~(at_last & done),
    )


def _moves(conditional, columns, a, b):
    """Changes of the potentials to choose from, in units of epsilon, `[m, moves]`."""
    links = links_of(a[:, None] * conditional, conditional)
    newton = solve_laplacian(links, b - columns, refinements=0)
    newton = jnp.where(jnp.isfinite(newton), newton, 0.0)
    sinkhorn = jnp.log(b / jnp.maximum(columns, jnp.finfo(b.dtype).tiny))
    directions = jnp.stack([newton, sinkhorn], axis=1)
    directions = directions - jnp.sum(b[:, None] * directions, axis=0, keepdims=True)
    moves = jnp.array(_SCALES, b.dtype)[None, :] * directions[:, jnp.array(_OF)]
    bounds = jnp.array(_BOUNDS, b.dtype)[None, :]
    return jnp.clip(moves, -bounds, bounds)


def _merits(moves, conditional, a, b):
    """Error of the columns after each move, and what the dual gains by it, over epsilon."""
    growth = jnp.expm1(moves)
    rows = jnp.matmul(conditional, growth, precision="highest")  # Sums of the rows, less one.
    rescaled = jnp.matmul(conditional.T, a[:, None] / (1 + rows), precision="highest")
    errors = jnp.sum(jnp.abs((1 + growth) * rescaled - b[:, None]), axis=0)
    gains = jnp.sum(b[:, None] * moves, axis=0) - jnp.sum(a[:, None] * jnp.log1p(rows), axis=0)
    return (
        jnp.where(jnp.isfinite(errors), errors, jnp.inf),
        jnp.where(jnp.isfinite(gains), gains, -jnp.inf),
    )
