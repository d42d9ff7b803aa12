"""ott-jax's Sinkhorn, as the problems of `entropic.py` need it; the one module that touches it."""

import contextlib
import warnings

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from otrw_jax.ot import newton
from otrw_jax.ot.arrays import equally_varying
from otrw_jax.ot.saddle import solve_saddle

with warnings.catch_warnings():
    # ott-jax imports JAXopt, which warns on import; nothing here uses it.
    warnings.simplefilter("ignore", DeprecationWarning)
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import implicit_differentiation, sinkhorn


def potentials_of(
    a: Float[Array, "n"],
    cost: Float[Array, "n m"],
    b: Float[Array, "m"],
    ot,
    start: tuple[Float[Array, "n"], Float[Array, "m"]] | None,
) -> tuple[Float[Array, "n"], Float[Array, "m"], Int[Array, ""], Int[Array, ""]]:
    """Potentials of both sides, iterations and Newton steps run, from masses that are positive.

    Args:
        a: row masses, `[n]`.
        cost: `[n, m]`.
        b: column masses, `[m]`.
        ot: the `EntropicOT`.
        start: potentials to start from; None for zero.
    """
    geom = geometry.Geometry(cost_matrix=cost, epsilon=ot.epsilon)
    with _loose_promotion():
        output = _solver(ot)(linear_problem.LinearProblem(geom, a=a, b=b), init=start)
    f, g = output.potentials
    errors = jnp.asarray(output.errors)
    iterations = jnp.asarray(output.set(errors=errors[:-1]).n_iters)
    return f, g, iterations, errors[-1].astype(jnp.int32)


@contextlib.contextmanager
def _loose_promotion():
    """ott-jax broadcasts between ranks and mixes dtypes."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def _solver(ot) -> sinkhorn.Sinkhorn:
    # The loop runs whole blocks of inner iterations, so the block must divide the maximum.
    block = max(d for d in range(1, 11) if ot.max_iterations % d == 0)
    return _Sinkhorn(
        threshold=ot.threshold,
        inner_iterations=block,
        max_iterations=ot.max_iterations,
        implicit_diff=None if ot.gradient == "unrolled" else _DirectSolve(),
        newton=ot.newton and ot.gradient != "unrolled" and ot.threshold > 0,
    )


@jax.tree_util.register_pytree_node_class
class _Sinkhorn(sinkhorn.Sinkhorn):
    """ott-jax's, traceable anywhere: where it is differentiated, and under `jax.shard_map`.

    Its error of the marginals mixes dtypes and ranks in the derivative, and starts as a constant.
    With `newton`, Newton steps end the iterations that did not converge. Where the iterations are
    differentiated implicitly, so are the steps: at the potentials that they come to.
    """

    def __init__(self, *args, newton: bool = False, **options):
        super().__init__(*args, **options)
        self.newton = newton

    def init_state(self, ot_prob, init):
        state = super().init_state(ot_prob, init)
        errors, _ = equally_varying(state.errors, ot_prob.a)
        return state.set(errors=errors)

    def one_iteration(self, ot_prob, state, iteration, compute_error):
        with _loose_promotion():
            state = self.lse_step(ot_prob, state, iteration)

        def error(state):
            marginal = ot_prob.geom.marginal_from_potentials(*state.potentials, axis=0)
            return jnp.sum(jnp.abs(marginal - ot_prob.b))

        wanted = compute_error | (iteration == self.max_iterations - 1)
        found = jax.lax.cond(wanted, error, lambda state: jnp.inf * state.errors[0, 0], state)
        errors = state.errors.at[iteration // self.inner_iterations, :].set(found)
        return state.set(errors=errors)

    def output_from_state(self, ot_prob, state):
        steps = (0 * state.errors[-1, 0]).astype(jnp.int32)
        if self.newton:
            # Of iterations that converged before the last, no error is there: -1.
            geom, error = ot_prob.geom, state.errors[-1, 0]
            *potentials, steps = newton.finish(
                *state.potentials,
                ot_prob.a,
                geom.cost_matrix,
                ot_prob.b,
                error,
                epsilon=geom.epsilon,
                threshold=self.threshold,
            )
            state = state.set(potentials=tuple(potentials))
        output = super().output_from_state(ot_prob, state)
        # ott-jax's output has no place for their number but behind the errors.
        steps = steps.astype(output.errors.dtype)
        return output.set(errors=jnp.append(output.errors, steps))


@jax.tree_util.register_pytree_node_class
class _DirectSolve(implicit_differentiation.ImplicitDiff):
    """Implicit differentiation of the potentials by one dense solve of the smaller side.

    The optimality conditions are kept as they are, `T 1 = a` and `T' 1 = b`, so the Jacobian in the
    potentials is `[[diag(a), T], [T', diag(b)]] / epsilon`.
    """

    def gradient(self, prob, f, g, lse_mode, gr):
        del lse_mode
        geom = prob.geom
        plan = jnp.exp((f[:, None] + g[None, :] - geom.cost_matrix) / geom.epsilon)
        grad_f, grad_g = gr
        x, y = solve_saddle(plan, geom.epsilon * grad_f, geom.epsilon * grad_g)
        grad_cost = plan * (x[:, None] + y[None, :]) / geom.epsilon
        _, pullback = jax.vjp(lambda p: (p.geom.cost_matrix, p.a, p.b), prob)
        return pullback((grad_cost, x, y))

    def tree_flatten(self):
        return (), None

    @classmethod
    def tree_unflatten(cls, aux_data, children):
        del aux_data, children
        return cls()
