"""The entropic OT problem between weighted examples and meta atoms (Guo et al. 2022, eq. 10).

ott-jax solves the problem (`sinkhorn.py`); Newton steps end what it is slow on (`newton.py`). The
gradient is implicit, with a linear solve of our own (`saddle.py`), because the stock solve is
iterative on a singular system and fails on problems of ordinary shape.
"""

import dataclasses
import numbers
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from otrw_jax.checks import AnyArray, check_number
from otrw_jax.ot.arrays import (
    equally_varying,
    float_dtype,
    require_masses,
    require_shapes,
    working,
)
from otrw_jax.ot.saddle import solve_for_cost
from otrw_jax.ot.small_epsilon import (
    annealed_start,
    cost_range,
    plan_rounding,
    rounded_to_marginals,
)

# Stands in for a mass of zero, so that potentials stay finite and the gradient at a zero weight is
# the one-sided derivative. The plan of such a row or column is returned as exact zeros.
_TINY_MASS = 1e-20


@dataclasses.dataclass(frozen=True)
class EntropicOT:
    """How the entropic OT problem is solved and differentiated. Hashable: a static argument.

    Attributes:
        epsilon: entropic regularisation, the paper's lambda, in units of the cost. Within a
            compiled function it may be a traced number, such as one that falls from step to step;
            losses, plans and potentials are differentiable in it. (Such an EntropicOT is no static
            argument.)
        max_iterations: bound on the Sinkhorn iterations at this epsilon. Where it is below a
            fiftieth of the range of the cost, they start from potentials that were followed down
            from larger ones, one iteration each, which are not counted; `"unrolled"` starts cold.
            With `newton` it is the number after which Newton steps take over; with a hundred atoms
            or more, 10 is several times as fast as the default
            (`python -m experiments.benchmark --only=newton`).
        threshold: stops when the L1 error of the marginals is below this. The default is chosen by
            the error of the gradient (`python -m experiments.benchmark --only=threshold`): ten
            times as loose serves batches of 16 and ten classes, and leaves errors of percents
            where there are a hundred atoms.
        gradient: `"implicit"`, by the implicit function theorem; `"unrolled"`, backpropagation
            through the iterations; `"envelope"`, the gradient of the regularised value
            `<C, T> - epsilon H(T)` (the dual potentials and the plan), which is cheaper and is not
            the gradient of `<C, T>`.
        newton: where Sinkhorn ends before it has converged, end it by Newton steps on the dual of
            the smaller side (`newton.py`), at most a hundred. What Sinkhorn solves is left as it
            is, bit for bit. A threshold of zero asks for a number of iterations, `"unrolled"` for
            the gradient of them: neither takes Newton steps.
    """

    epsilon: float | Float[Array, ""] = 0.1
    max_iterations: int = 200
    threshold: float = 1e-5
    gradient: Literal["implicit", "unrolled", "envelope"] = "implicit"
    newton: bool = True

    def __post_init__(self):
        check_number("EntropicOT", "epsilon", self.epsilon, above=0)
        if not isinstance(self.max_iterations, numbers.Integral) or self.max_iterations < 1:
            raise ValueError(
                f"EntropicOT.max_iterations is {self.max_iterations}; it must be at least 1, and "
                "a whole number."
            )
        check_number("EntropicOT", "threshold", self.threshold, least=0)
        if self.gradient not in ("implicit", "unrolled", "envelope"):
            raise ValueError(
                f"EntropicOT.gradient is {self.gradient!r}; choose 'implicit', 'unrolled' or "
                "'envelope'."
            )
        if not isinstance(self.newton, bool):
            raise ValueError(f"EntropicOT.newton is {self.newton!r}; choose True or False.")


class Transport(NamedTuple):
    """A solved problem: `plan = exp((f + g - cost) / epsilon)`.

    Attributes:
        plan: `[n, m]`; rows sum to the weights, columns to the meta weights.
        f: dual potential of the training side, `[n]`.
        g: dual potential of the meta side, `[m]`.
        iterations: Sinkhorn iterations run.
        marginal_error: L1 distance of both of the plan's marginals from the wanted ones.
        converged: whether `marginal_error` is within the threshold, or the rounding of a plan whose
            exponents are differences of numbers as large as the cost over epsilon.
        newton_steps: Newton steps taken after the iterations.
    """

    plan: Float[Array, "n m"]
    f: Float[Array, "n"]
    g: Float[Array, "m"]
    iterations: Int[Array, ""]
    marginal_error: Float[Array, ""]
    converged: Bool[Array, ""]
    newton_steps: Int[Array, ""]


def transport(
    weights: Float[AnyArray, "n"],
    cost: Real[AnyArray, "n m"],
    meta_weights: Float[AnyArray, "m"] | None = None,
    *,
    ot: EntropicOT = EntropicOT(),
) -> Transport:
    """Solves `min <T, C> - epsilon H(T)` over plans between `weights` and `meta_weights`.

    A weight of zero is an ordinary input: its row of the plan is zero. Padding is done this way:
    a padded example has weight zero and any finite cost. Plan and potentials are differentiable
    in weights, cost and meta weights as `ot.gradient` says (`"envelope"` concerns `ot_loss`
    alone; here it differentiates implicitly), in reverse mode. A NaN anywhere makes all of them
    NaN. Plan and potentials have the cost's dtype (float for whole numbers) and are found in
    float32 or wider; weights of half precision are scaled to the mass of the meta weights.

    Args:
        weights: probability of each training example, `[n]`, non-negative, summing to the same mass
            as `meta_weights`.
        cost: `[n, m]`.
        meta_weights: probability of each meta atom, `[m]`; uniform 1/m by default.
        ot: the regularisation, stopping rule and gradient.

    Raises:
        ValueError: shapes that do not fit; masses that are known (not traced) and negative, or of
            different sums; `"unrolled"` differentiated where `jax.shard_map` checks what varies.
    """
    a, c, b = _prepared("transport", weights, cost, meta_weights)
    solved = _transport(a, c, b, ot)
    dtype = float_dtype(cost)
    plan, f, g = (x.astype(dtype) for x in solved[:3])
    return solved._replace(plan=plan, f=f, g=g)


def ot_loss(
    weights: Float[AnyArray, "n"],
    cost: Real[AnyArray, "n m"],
    meta_weights: Float[AnyArray, "m"] | None = None,
    *,
    ot: EntropicOT = EntropicOT(),
) -> Float[Array, ""]:
    """Returns `<C, T*>`, the transport cost of the entropic plan (eq. 10).

    The loss holds no entropy term, so its gradient is not the dual potential, except with
    `ot.gradient="envelope"`, which puts the gradient of the regularised value in its place. The
    gradient in `weights` is defined up to a constant, since weights live on the simplex. It belongs
    in a jitted function: outside of one, every call compiles the solver anew. Reverse mode twice
    gives second derivatives; there is no forward mode.

    Where the solver ends before it has converged, the loss is the cost of a plan that does have the
    wanted marginals, the solver's rounded to them (Altschuler et al. 2017, algorithm 2), and the
    gradient is bounded: where the implicit one is spread over more than the range of the cost, each
    weight gets `sum_j T_ij (C_ij - g_j) / w_i` of the solver's potentials, whose differences are
    within the range of the cost and epsilon log m. With `"unrolled"` loss and gradient are those of
    the plan as the iterations leave it.

    Args:
        weights: `[n]`, as in `transport`.
        cost: `[n, m]`.
        meta_weights: `[m]`; uniform by default.
        ot: the regularisation, stopping rule and gradient.

    Raises:
        ValueError: as `transport`.
    """
    return ot_loss_and_convergence(weights, cost, meta_weights, ot=ot)[0]


class Convergence(NamedTuple):
    """How far the solver came: `marginal_error` and `converged` as in `Transport`."""

    marginal_error: Float[Array, ""]
    converged: Bool[Array, ""]


def ot_loss_and_convergence(
    weights: Float[AnyArray, "n"],
    cost: Real[AnyArray, "n m"],
    meta_weights: Float[AnyArray, "m"] | None = None,
    *,
    ot: EntropicOT = EntropicOT(),
) -> tuple[Float[Array, ""], Convergence]:
    """`ot_loss`, and how far the solver came; for `jax.value_and_grad(..., has_aux=True)`."""
    a, c, b = _prepared("ot_loss", weights, cost, meta_weights)
    if isinstance(ot.epsilon, Array):
        # Scaled to an epsilon of one, so that every derivative in epsilon is one in the cost.
        epsilon = _positive(ot.epsilon, c.dtype)
        value, convergence = _loss(dataclasses.replace(ot, epsilon=1.0), a, c / epsilon, b)
        value = value * epsilon
    else:
        value, convergence = _loss(ot, a, c, b)
    return value.astype(float_dtype(cost)), convergence


def _prepared(where, weights, cost, meta_weights):
    """Weights, cost and meta weights as arrays of one dtype, checked."""
    require_shapes(where, cost=(cost, "n m"), weights=(weights, "n"))
    if meta_weights is not None:
        require_shapes(where, cost=(cost, "n m"), meta_weights=(meta_weights, "m"))
    require_masses(where, weights, meta_weights)
    dtype = working(cost)
    half = any(
        x is not None and jnp.asarray(x).dtype.itemsize == 2 for x in (weights, meta_weights)
    )
    weights, cost = jnp.asarray(weights, dtype), jnp.asarray(cost, dtype)
    if meta_weights is None:
        meta_weights = jnp.full((cost.shape[1],), 1 / cost.shape[1], dtype)
    meta_weights = jnp.asarray(meta_weights).astype(dtype)
    if half:
        weights = weights * (jnp.sum(meta_weights) / jnp.sum(weights))
    return equally_varying(weights, cost, meta_weights)


def _positive(epsilon, dtype):
    """A traced epsilon; NaN where it is not positive."""
    return jnp.where(epsilon > 0, epsilon, jnp.nan).astype(dtype)


def _transport(weights, cost, meta_weights, ot):
    if isinstance(ot.epsilon, Array):
        epsilon = _positive(ot.epsilon, cost.dtype)
        solved = _transport(
            weights, cost / epsilon, meta_weights, dataclasses.replace(ot, epsilon=1.0)
        )
        return solved._replace(f=epsilon * solved.f, g=epsilon * solved.g)
    no_row, no_column = weights <= 0, meta_weights <= 0
    a = weights + jnp.where(no_row, _TINY_MASS, 0.0).astype(cost.dtype)
    b = meta_weights + jnp.where(no_column, _TINY_MASS, 0.0).astype(cost.dtype)
    spread = jax.lax.stop_gradient(cost_range(cost, ~no_row, ~no_column))
    start = None
    if ot.gradient != "unrolled":
        start = annealed_start(a, cost, b, ot.epsilon, spread)
    with jax.ensure_compile_time_eval():  # What an import computes is no part of what is traced.
        from otrw_jax.ot.sinkhorn import potentials_of  # Here, since ott-jax is slow to import.
    try:
        f, g, iterations, newton_steps = potentials_of(a, cost, b, ot, start)
    except TypeError as error:  # Of a loop of ott-jax, whose backward pass starts as constants.
        if ot.gradient != "unrolled" or "axis types" not in str(error):
            raise
        raise ValueError(
            "EntropicOT.gradient is 'unrolled', whose gradient jax.shard_map takes with "
            "check_vma=False alone; give it that, or choose 'implicit' or 'envelope'."
        ) from error
    # ott-jax takes a potential that is not a number for zero.
    finite = [jnp.isfinite(x).all() for x in (weights, cost, meta_weights)]
    poison = jnp.where(finite[0] & finite[1] & finite[2], 0.0, jnp.nan).astype(cost.dtype)
    f, g = (potential + poison for potential in (f, g))
    plan = jnp.exp((f[:, None] + g[None, :] - cost) / ot.epsilon)
    # Exact zeros in value; the gradient of a zero weight still passes through its row.
    absent = no_row[:, None] | no_column[None, :]
    plan = plan - jax.lax.stop_gradient(jnp.where(absent, plan, 0.0))
    marginal_error = jnp.sum(jnp.abs(plan.sum(1) - weights)) + jnp.sum(
        jnp.abs(plan.sum(0) - meta_weights)
    )
    marginal_error = jax.lax.stop_gradient(marginal_error)
    rounding = jax.lax.stop_gradient(plan_rounding(cost, ~no_row, ~no_column, ot.epsilon))
    converged = marginal_error <= ot.threshold + rounding
    return Transport(plan, f, g, iterations, marginal_error, converged, newton_steps)


def _loss(ot, weights, cost, meta_weights):
    of = _loss_of_iterations if ot.gradient == "unrolled" else _bounded_loss
    return of(ot, weights, cost, meta_weights)


def _loss_of_iterations(ot, weights, cost, meta_weights):
    solved = _transport(weights, cost, meta_weights, ot)
    return jnp.sum(cost * solved.plan), Convergence(solved.marginal_error, solved.converged)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bounded_loss(ot, weights, cost, meta_weights):
    return _loss_forward(ot, weights, cost, meta_weights)[0]


def _loss_forward(ot, weights, cost, meta_weights):
    solved = _transport(weights, cost, meta_weights, ot)
    feasible = jnp.sum(cost * rounded_to_marginals(solved.plan, weights, meta_weights))
    value = jnp.where(solved.converged, jnp.sum(cost * solved.plan), feasible)
    result = value, Convergence(solved.marginal_error, solved.converged)
    return result, (solved, weights, cost, meta_weights)


def _loss_backward(ot, residuals, cotangent):
    solved, weights, cost, meta_weights = residuals
    by_value = cotangent[0]
    if ot.gradient == "envelope":
        gradients = solved.f, solved.plan, solved.g
    else:
        gradients = _implicit_gradients(ot, solved, weights, cost, meta_weights)
    return tuple(by_value * x for x in gradients)


_bounded_loss.defvjp(_loss_forward, _loss_backward)


def _implicit_gradients(ot, solved, weights, cost, meta_weights):
    """Of `<C, T*>` in weights, cost and meta weights; bounded where the solver did not converge."""
    plan = jnp.exp((solved.f[:, None] + solved.g[None, :] - cost) / ot.epsilon)
    x, y = solve_for_cost(plan, cost)
    by_cost = solved.plan + plan * (x[:, None] + y[None, :] - cost) / ot.epsilon
    rows = jnp.where(plan.sum(1) > 0, plan.sum(1), 1.0)
    of_potentials = jnp.sum(plan * (cost - solved.g[None, :]), axis=1) / rows
    spread = cost_range(cost, weights > 0, meta_weights > 0)
    sound = solved.converged | ((jnp.ptp(x) <= spread) & (jnp.ptp(y) <= spread))
    bounded = of_potentials, solved.plan, solved.g
    return tuple(jnp.where(sound, *pair) for pair in zip((x, by_cost, y), bounded, strict=True))
