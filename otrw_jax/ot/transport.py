"""The entropic OT problem between weighted examples and meta atoms (Guo et al. 2022, eq. 10).

ott-jax solves the problem; this is the one module that touches it. The gradient goes through
ott-jax's implicit differentiation with a linear solve of our own (`_DirectSolve`), because the
stock solve is iterative on a singular system and fails on problems of ordinary shape.
"""

import dataclasses
import warnings
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

with warnings.catch_warnings():
    # ott-jax imports JAXopt, which warns on import; nothing here uses it.
    warnings.simplefilter("ignore", DeprecationWarning)
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import implicit_differentiation, sinkhorn

# Stands in for a mass of zero, so that potentials stay finite and the gradient at a zero weight is
# the one-sided derivative. The plan of such a row or column is returned as exact zeros.
_TINY_MASS = 1e-20


@dataclasses.dataclass(frozen=True)
class EntropicOT:
    """How the entropic OT problem is solved and differentiated. Hashable: a static argument.

    Attributes:
        epsilon: entropic regularisation, the paper's lambda, in units of the cost.
        max_iterations: bound on the Sinkhorn iterations.
        threshold: stops when the L1 error of the marginals is below this. The default is chosen by
            the error of the gradient (`python -m experiments.benchmark --only=threshold`): ten
            times as loose serves batches of 16 and ten classes, and leaves errors of percents
            where there are a hundred atoms.
        gradient: `"implicit"`, by the implicit function theorem; `"unrolled"`, backpropagation
            through the iterations; `"envelope"`, the gradient of the regularised value
            `<C, T> - epsilon H(T)` (the dual potentials and the plan), which is cheaper and is not
            the gradient of `<C, T>`.
    """

    epsilon: float = 0.1
    max_iterations: int = 200
    threshold: float = 1e-5
    gradient: Literal["implicit", "unrolled", "envelope"] = "implicit"

    def __post_init__(self):
        if not self.epsilon > 0:
            raise ValueError(f"EntropicOT.epsilon is {self.epsilon}; it must be positive.")
        if self.max_iterations < 1:
            raise ValueError(
                f"EntropicOT.max_iterations is {self.max_iterations}; it must be at least 1."
            )
        if not self.threshold >= 0:
            raise ValueError(f"EntropicOT.threshold is {self.threshold}; it must be >= 0.")
        if self.gradient not in ("implicit", "unrolled", "envelope"):
            raise ValueError(
                f"EntropicOT.gradient is {self.gradient!r}; choose 'implicit', 'unrolled' or "
                "'envelope'."
            )


class Transport(NamedTuple):
    """A solved problem: `plan = exp((f + g - cost) / epsilon)`.

    Attributes:
        plan: `[n, m]`; rows sum to the weights, columns to the meta weights.
        f: dual potential of the training side, `[n]`.
        g: dual potential of the meta side, `[m]`.
        iterations: Sinkhorn iterations run.
        marginal_error: L1 distance of both of the plan's marginals from the wanted ones.
        converged: whether `marginal_error` is within the threshold (or float32 rounding of it).
    """

    plan: Float[Array, "n m"]
    f: Float[Array, "n"]
    g: Float[Array, "m"]
    iterations: Int[Array, ""]
    marginal_error: Float[Array, ""]
    converged: Bool[Array, ""]


def transport(
    weights: Float[Array, "n"],
    cost: Float[Array, "n m"],
    meta_weights: Float[Array, "m"] | None = None,
    *,
    ot: EntropicOT = EntropicOT(),
) -> Transport:
    """Solves `min <T, C> - epsilon H(T)` over plans between `weights` and `meta_weights`.

    A weight of zero is an ordinary input: its row of the plan is zero. Padding is done this way:
    a padded example has weight zero and any finite cost. Plan and potentials are differentiable
    in weights, cost and meta weights as `ot.gradient` says (`"envelope"` concerns `ot_loss`
    alone; here it differentiates implicitly).

    Args:
        weights: probability of each training example, `[n]`, non-negative, summing to the same mass
            as `meta_weights`.
        cost: `[n, m]`.
        meta_weights: probability of each meta atom, `[m]`; uniform 1/m by default.
        ot: the regularisation, stopping rule and gradient.
    """
    chex.assert_rank([weights, cost], [1, 2])
    n, m = cost.shape
    dtype = cost.dtype
    weights = jnp.asarray(weights, dtype)
    if meta_weights is None:
        meta_weights = jnp.full((m,), 1 / m, dtype)
    meta_weights = jnp.asarray(meta_weights, dtype)
    chex.assert_shape([weights, meta_weights], [(n,), (m,)])

    problem = linear_problem.LinearProblem(
        geometry.Geometry(cost_matrix=cost, epsilon=ot.epsilon),
        a=weights + _TINY_MASS * (weights <= 0),
        b=meta_weights + _TINY_MASS * (meta_weights <= 0),
    )
    with jax.numpy_rank_promotion("allow"):  # ott-jax broadcasts between ranks.
        output = _solver(ot)(problem)
    f, g = output.potentials
    plan = jnp.exp((f[:, None] + g[None, :] - cost) / ot.epsilon)
    # Exact zeros in value; the gradient of a zero weight still passes through its row.
    present = (weights > 0)[:, None] & (meta_weights > 0)[None, :]
    plan = plan - jax.lax.stop_gradient(jnp.where(present, 0.0, plan))
    marginal_error = jnp.sum(jnp.abs(plan.sum(1) - weights)) + jnp.sum(
        jnp.abs(plan.sum(0) - meta_weights)
    )
    marginal_error = jax.lax.stop_gradient(marginal_error)
    rounding = 16 * jnp.finfo(dtype).eps
    return Transport(
        plan, f, g, output.n_iters, marginal_error, marginal_error <= ot.threshold + rounding
    )


def ot_loss(
    weights: Float[Array, "n"],
    cost: Float[Array, "n m"],
    meta_weights: Float[Array, "m"] | None = None,
    *,
    ot: EntropicOT = EntropicOT(),
) -> Float[Array, ""]:
    """Returns `<C, T*>`, the transport cost of the entropic plan (eq. 10).

    The loss holds no entropy term, so its gradient is not the dual potential, except with
    `ot.gradient="envelope"`, which puts the gradient of the regularised value in its place. The
    gradient in `weights` is defined up to a constant, since weights live on the simplex. It belongs
    in a jitted function: outside of one, every call compiles the solver anew.

    Args:
        weights: `[n]`, as in `transport`.
        cost: `[n, m]`.
        meta_weights: `[m]`; uniform by default.
        ot: the regularisation, stopping rule and gradient.
    """
    if ot.gradient != "envelope":
        return jnp.sum(cost * transport(weights, cost, meta_weights, ot=ot).plan)
    solved = jax.lax.stop_gradient(transport(weights, cost, meta_weights, ot=ot))
    surrogate = jnp.vdot(solved.f, weights) + jnp.sum(solved.plan * cost)
    if meta_weights is not None:
        surrogate += jnp.vdot(solved.g, meta_weights)
    value = jax.lax.stop_gradient(jnp.sum(cost * solved.plan))
    return value + surrogate - jax.lax.stop_gradient(surrogate)


def _solver(ot: EntropicOT) -> sinkhorn.Sinkhorn:
    # The loop runs whole blocks of inner iterations, so the block must divide the maximum.
    block = max(d for d in range(1, 11) if ot.max_iterations % d == 0)
    return sinkhorn.Sinkhorn(
        threshold=ot.threshold,
        inner_iterations=block,
        max_iterations=ot.max_iterations,
        implicit_diff=None if ot.gradient == "unrolled" else _DirectSolve(),
    )


@jax.tree_util.register_pytree_node_class
class _DirectSolve(implicit_differentiation.ImplicitDiff):
    """Implicit differentiation by one dense solve of the smaller side.

    The optimality conditions are kept as they are, `T 1 = a` and `T' 1 = b`, so the Jacobian in the
    potentials is `[[diag(a), T], [T', diag(b)]] / epsilon`. Eliminating the larger side leaves a
    weighted graph Laplacian of min(n, m) nodes, whose diagonal is taken as the sum of its
    off-diagonal entries: a sum of positive numbers, exact to rounding however weakly the classes
    are connected.
    """

    def gradient(self, prob, f, g, lse_mode, gr):
        del lse_mode
        geom = prob.geom
        plan = jnp.exp((f[:, None] + g[None, :] - geom.cost_matrix) / geom.epsilon)
        grad_f, grad_g = gr
        x, y = _solve_saddle(plan, geom.epsilon * grad_f, geom.epsilon * grad_g)
        grad_cost = plan * (x[:, None] + y[None, :]) / geom.epsilon
        _, pullback = jax.vjp(lambda p: (p.geom.cost_matrix, p.a, p.b), prob)
        return pullback((grad_cost, x, y))

    def tree_flatten(self):
        return (), None

    @classmethod
    def tree_unflatten(cls, aux_data, children):
        del aux_data, children
        return cls()


def _solve_saddle(plan, right_f, right_g):
    """Solves `[[diag(T1), T], [T', diag(T'1)]] [x; y] = [right_f; right_g]`, gauge y'b ~ 0."""
    n, m = plan.shape
    if n < m:
        y, x = _solve_saddle(plan.T, right_g, right_f)
        return x, y
    rows = plan.sum(1)
    rows = jnp.where(rows > 0, rows, 1.0)
    conditional = plan / rows[:, None]
    links = jnp.matmul(plan.T, conditional, precision="highest")
    links = jnp.where(jnp.eye(m, dtype=bool), 0.0, 0.5 * (links + links.T))
    y = _solve_laplacian(links, right_g - jnp.matmul(conditional.T, right_f, precision="highest"))
    x = right_f / rows - jnp.matmul(conditional, y, precision="highest")
    return x, y


def _solve_laplacian(links, right, ridge=3e-6, refinements=1):
    """Solves `(diag(links 1) - links) y = right` for symmetric non-negative links, zero diagonal.

    Scaled to a unit diagonal; the constant direction is fixed by a rank-one term; a ridge keeps
    the factor positive definite where groups of nodes are not linked at all, and refinement takes
    its bias back where they are.
    """
    degree = links.sum(1)
    scale = 1 / jnp.sqrt(jnp.where(degree > 0, degree, 1.0))
    size = links.shape[0]
    kernel = 1 / scale
    kernel = kernel / jnp.linalg.norm(kernel)
    matrix = (
        jnp.eye(size, dtype=links.dtype)
        - scale[:, None] * links * scale[None, :]
        + kernel[:, None] * kernel[None, :]
    )
    right = scale * right
    factor = jax.scipy.linalg.cho_factor(matrix + ridge * jnp.eye(size, dtype=links.dtype))
    y = jax.scipy.linalg.cho_solve(factor, right)
    for _ in range(refinements):
        residual = right - jnp.matmul(matrix, y, precision="highest")
        y = y + jax.scipy.linalg.cho_solve(factor, residual)
    return scale * y
