"""EntropicOT, transport and ot_loss against a float64 NumPy reference."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.sharding import PartitionSpec as P

from otrw_jax.ot.arrays import require_masses
from otrw_jax.ot.entropic import EntropicOT, ot_loss, transport
from tests.ot.solved import (
    EPSILON,
    GRADIENTS,
    PRECISE,
    assert_close,
    gradients_of,
    solve,
    value_and_gradients,
)

from . import reference
from .problems import make_problem, single


def test_one_example_and_one_atom():
    value, gradient, by_cost, by_meta = gradients_of([1.0], [1.0], [[0.7]])
    np.testing.assert_allclose(value, 0.7, rtol=1e-6)
    np.testing.assert_allclose(by_cost, [[1.0]], rtol=1e-5)
    assert np.isfinite(gradient).all() and np.isfinite(by_meta).all()


def test_meta_weights_are_uniform_by_default():
    a, b, matrix = single(*make_problem(16, 10))
    given, default = solve(a, matrix, b, ot=PRECISE), solve(a, matrix, ot=PRECISE)
    np.testing.assert_allclose(default.plan, given.plan, rtol=1e-6)


@pytest.mark.parametrize("weights", ["random", "zeros"])
def test_plan_and_its_diagnostics(weights):
    a, b, matrix = make_problem(16, 10, weights=weights)
    b = np.where(np.arange(10) == 4, 0, b)
    b = b / b.sum()
    solved = solve(*single(a, matrix, b), ot=PRECISE)
    plan = np.asarray(solved.plan, np.float64)
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-6)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-6)
    assert not plan[a == 0].any() and not plan[:, 4].any()
    np.testing.assert_allclose(plan, reference.sinkhorn(a, b, matrix, EPSILON)[0], atol=1e-6)
    f, g = np.float64(solved.f), np.float64(solved.g)
    gibbs = np.exp((f[:, None] + g[None, :] - matrix) / EPSILON)
    np.testing.assert_allclose(gibbs, plan, rtol=1e-4, atol=1e-15)
    dual = f[a > 0] @ a[a > 0] + g[b > 0] @ b[b > 0]
    np.testing.assert_allclose(dual, reference.regularised_value(a, b, matrix, EPSILON), rtol=1e-5)
    assert solved.converged
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    np.testing.assert_allclose(solved.marginal_error, error, atol=1e-6)


@pytest.mark.parametrize("iterations", [1, 5, 7, 12])
def test_runs_exactly_the_iterations_asked_for(iterations):
    """Also where ott-jax's block of ten would round them down to none."""
    a, b, matrix = make_problem(16, 10)
    solved = solve(*single(a, matrix, b), ot=EntropicOT(EPSILON, iterations, 0.0))
    plan, _, _ = reference.sinkhorn(a, b, matrix, EPSILON, iterations=iterations)
    assert solved.iterations == iterations
    np.testing.assert_allclose(solved.plan, plan, atol=1e-6)
    wanted = np.abs(plan.sum(0) - b).sum()
    np.testing.assert_allclose(solved.marginal_error, wanted, rtol=1e-3)
    assert not solved.converged


def test_stops_once_the_marginals_are_right():
    a, b, matrix = single(*make_problem(16, 10, "feature"))
    solved = solve(a, matrix, b, ot=PRECISE)
    assert solved.converged and 0 < solved.iterations < 100


def test_one_problem_alone_and_in_a_batch_and_without_jit():
    problems = [single(*make_problem(16, 10, seed=seed)) for seed in (7, 8, 9)]
    alone = [value_and_gradients(a, cost, b, ot=PRECISE) for a, b, cost in problems]
    a, b, cost = (jnp.stack(arrays) for arrays in zip(*problems, strict=True))
    together = jax.jit(jax.vmap(partial(value_and_gradients, ot=PRECISE)))(a, cost, b)
    for place, (value, gradients) in enumerate(alone):
        np.testing.assert_allclose(together[0][place], value, rtol=1e-5)
        for one, other in zip(together[1], gradients, strict=True):
            assert_close(one[place] - one[place].mean(), other - other.mean())
    without_jit = ot_loss(a[0], cost[0], b[0], ot=PRECISE)
    np.testing.assert_allclose(without_jit, alone[0][0], rtol=1e-5)


def test_inside_pmap_and_shard_map():
    devices = jax.devices("cpu")[:2]
    problems = [single(*make_problem(16, 10, seed=seed)) for seed in (7, 8)]
    a, b, cost = (jnp.stack(arrays) for arrays in zip(*problems, strict=True))
    function = jax.value_and_grad(partial(ot_loss, ot=PRECISE))
    spread = jax.pmap(function, devices=devices)(a, cost, b)

    def one_row(a, cost, b):
        return jax.tree.map(lambda x: x[None], function(a[0], cost[0], b[0]))

    mesh = jax.sharding.Mesh(np.array(devices), "x")
    sharded = jax.jit(jax.shard_map(one_row, mesh=mesh, in_specs=P("x"), out_specs=P("x")))(
        a, cost, b
    )
    for place, (one_a, one_b, one_cost) in enumerate(problems):
        value, gradient, _, _ = gradients_of(one_a, one_b, one_cost)
        for values, gradients in (spread, sharded):
            np.testing.assert_allclose(values[place], value, rtol=1e-5)
            found = np.float64(gradients[place])
            assert_close(found - found.mean(), gradient - gradient.mean())


def test_equal_settings_share_one_compiled_function():
    traces = []

    @partial(jax.jit, static_argnames="ot")
    def function(a, cost, ot):
        traces.append(ot)
        return ot_loss(a, cost, ot=ot)

    a, _, cost = single(*make_problem(4, 3))
    first = function(a, cost, EntropicOT(0.3, max_iterations=3))
    second = function(a, cost, EntropicOT(0.3, max_iterations=3))
    assert len(traces) == 1 and first == second
    assert function(a, cost, EntropicOT(0.9, max_iterations=3)) > first
    assert len(traces) == 2


def test_float64():
    a, b, matrix = make_problem(16, 10)
    ot = EntropicOT(EPSILON, threshold=1e-10, max_iterations=5000)
    with jax.enable_x64(True):
        function = jax.jit(jax.value_and_grad(partial(ot_loss, ot=ot)))
        value, gradient = function(*(jnp.asarray(x, jnp.float64) for x in (a, matrix, b)))
        assert gradient.dtype == jnp.float64
        assert_close(gradient - gradient.mean(), reference.gradient(a, b, matrix, EPSILON), 1e-7)
        np.testing.assert_allclose(value, reference.loss(a, b, matrix, EPSILON), rtol=1e-9)
        shapes = [jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (a, matrix, b)]
        kept = jax.eval_shape(function, *shapes)
        assert kept[0].dtype == kept[1].dtype == jnp.float32


@pytest.mark.parametrize("cost", ["feature", "combined"])
@pytest.mark.parametrize("most", [1, 20])
@pytest.mark.parametrize("epsilon", [0.1, 0.001])
def test_an_unconverged_problem_is_bounded(cost, most, epsilon):
    """The loss is a feasible plan's, the gradient is spread over little more than the cost is."""
    a, b, matrix = make_problem(16, 10, cost, "peaked")
    ot = EntropicOT(epsilon, most, newton=False)
    value, gradient, by_cost, by_meta = gradients_of(a, b, matrix, ot)
    solved = solve(*single(a, matrix, b), ot=ot)
    least = scipy.optimize.linprog(
        matrix.ravel(),
        A_eq=np.concatenate([np.kron(np.eye(16), np.ones(10)), np.kron(np.ones(16), np.eye(10))]),
        b_eq=np.concatenate([a, b]),
    ).fun
    exact = reference.loss(a, b, matrix, epsilon)
    assert least - 1e-5 <= value
    assert abs(value - exact) <= (float(solved.marginal_error) + 1e-5) * np.ptp(matrix)
    bound = np.ptp(matrix) + epsilon * np.log(10) + 1e-4
    assert np.ptp(gradient) <= bound and np.isfinite(by_meta).all() and np.isfinite(by_cost).all()


def test_epsilon_may_be_traced():
    """The values of a static one, and derivatives in epsilon by differences."""
    a, b, matrix = single(*make_problem(16, 10))
    cost = matrix

    @jax.jit
    def function(epsilon):
        ot = EntropicOT(epsilon, threshold=1e-6, max_iterations=2000)
        solved = transport(a, cost, b, ot=ot)
        return ot_loss(a, cost, b, ot=ot), jnp.vdot(solved.plan, cost), solved.f[0] - solved.f[1]

    exact = [reference.sinkhorn(a, b, cost, e) for e in (0.099, 0.1, 0.101)]
    wanted = [(np.sum(cost * plan), np.sum(cost * plan), f[0] - f[1]) for plan, f, _ in exact]
    np.testing.assert_allclose(function(0.1), wanted[1], rtol=1e-4)
    slopes = (np.array(wanted[2]) - np.array(wanted[0])) / 0.002
    np.testing.assert_allclose(jax.jit(jax.jacrev(function))(0.1), slopes, rtol=2e-3)
    assert np.isnan(function(-0.1)).all() and np.isnan(function(jnp.nan)).all()


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_any_dtype(gradient):
    a, b, matrix = make_problem(16, 10)
    ot = EntropicOT(EPSILON, gradient=gradient)
    value, exact, _, _ = gradients_of(a, b, matrix, ot)
    for dtype in (jnp.float16, jnp.bfloat16):
        found = value_and_gradients(*(jnp.asarray(x, dtype) for x in (a, matrix, b)), ot=ot)
        assert all(x.dtype == dtype for x in jax.tree.leaves(found))
        np.testing.assert_allclose(np.float32(found[0]), value, rtol=0.02)
        by_weights = np.float64(found[1][0])
        assert_close(by_weights - by_weights.mean(), exact - exact.mean(), 0.05)
    whole, of_whole = np.round(2 * matrix).astype(int), jax.jit(partial(ot_loss, ot=ot))
    assert of_whole(a, whole, b) == of_whole(*single(a, whole, b)) > 0
    with jax.numpy_dtype_promotion("strict"):
        strict = jax.jit(jax.value_and_grad(partial(ot_loss, ot=ot)))(*single(a, matrix, b))
    np.testing.assert_allclose(strict[0], value, rtol=1e-6)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("place", ["weights", "cost", "meta_weights", "padding"])
def test_what_is_not_a_number_stays_none(gradient, place):
    a, b, matrix = make_problem(16, 10, weights="zeros")
    if place == "padding":
        matrix[0, 3] = np.nan
    else:
        {"weights": a, "cost": matrix[1], "meta_weights": b}[place][2] = np.nan
    ot = EntropicOT(EPSILON, gradient=gradient)
    value, *gradients = gradients_of(a, b, matrix, ot)
    assert np.isnan(value) and np.isnan(gradients[0]).all()
    solved = solve(*single(a, matrix, b), ot=ot)
    assert np.isnan(solved.plan).all() and np.isnan(solved.f).all() and np.isnan(solved.g).all()
    assert not solved.converged


@pytest.mark.parametrize("offset", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("spread", [0.0, 1e-3])
def test_a_cost_that_hardly_differs_converges_at_a_small_epsilon(offset, spread):
    """Its exponents round as those of any cost as large, and no Newton step makes that better."""
    rng = np.random.default_rng(0)
    a, cost, b = single(
        rng.dirichlet(np.ones(16)), offset + spread * rng.uniform(size=(16, 10)), np.full(10, 0.1)
    )
    solved = solve(a, cost, b, ot=EntropicOT(0.001))
    assert solved.converged and solved.newton_steps == 0
    assert solved.marginal_error < 1.2e-7 * (100 + offset / 0.001)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": float("inf")}, r"EntropicOT: epsilon is inf; it must be above 0 and finite"),
        (
            {"threshold": float("nan")},
            r"EntropicOT: threshold is nan; it must be 0 or more and finite",
        ),
        ({"max_iterations": 2.5}, r"EntropicOT\.max_iterations is 2\.5; .* a whole number"),
        ({"epsilon": 0.0}, r"EntropicOT: epsilon is 0\.0; it must be above 0"),
        ({"epsilon": float("nan")}, r"EntropicOT: epsilon is nan; it must be above 0"),
        ({"max_iterations": 0}, r"EntropicOT\.max_iterations is 0; it must be at least 1"),
        ({"threshold": -1.0}, r"EntropicOT: threshold is -1\.0; it must be 0 or more"),
        ({"newton": 20}, r"EntropicOT\.newton is 20; choose True or False"),
        ({"gradient": "dual"}, r"gradient is 'dual'; choose 'implicit', 'unrolled' or 'envelope'"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        EntropicOT(**options)


@pytest.mark.usefixtures("signatures_unchecked")
def test_shapes_are_checked():
    for shapes in [((3,), (4, 2), (2,)), ((4,), (4, 2), (3,)), ((4, 1), (4, 2), (2,))]:
        a, cost, b = (jnp.ones(shape) for shape in shapes)
        with pytest.raises(
            ValueError, match=r"ot_loss: (meta_)?weights has the shape .*it must be"
        ):
            ot_loss(a, cost, b)
    with pytest.raises(
        ValueError, match=r"transport: cost has the shape \(4,\); it must be \[n, m"
    ):
        transport(jnp.ones(4), jnp.ones(4))


def test_known_masses_are_checked():
    """Their sign and their sum; half precision may round it."""
    cost, half = jnp.ones((4, 2)), jnp.full((10,), 0.1, jnp.bfloat16)
    for function in (ot_loss, transport):
        with pytest.raises(ValueError, match=r"weights has an entry of -0\.5; masses are >= 0"):
            function(jnp.array([0.5, 0.5, 0.5, -0.5]), cost)
        with pytest.raises(ValueError, match=r"weights sum to 4 and meta_weights to 1; scale one"):
            function(jnp.ones(4), cost)
        with pytest.raises(ValueError, match=r"weights sum to 1 and meta_weights to 2; scale one"):
            function(jnp.full(4, 0.25), cost, jnp.ones(2))
    require_masses("here", half, None)


def test_unrolled_inside_shard_map():
    """Its gradient, where nothing is checked; otherwise a sentence, and the loss alone."""
    ot = EntropicOT(0.1, max_iterations=20, gradient="unrolled")
    a, _, cost = single(*make_problem(5, 3))
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:2]), "x")

    def on_two(function, **options):
        options |= {"mesh": mesh, "in_specs": P("x"), "out_specs": P("x")}
        rows = jax.shard_map(lambda a, cost: function(a[0], cost[0])[None], **options)
        return jax.jit(rows)(jnp.stack([a, a]), jnp.stack([cost, cost]))

    loss = partial(ot_loss, ot=ot)
    np.testing.assert_allclose(on_two(loss)[1], loss(a, cost), rtol=1e-5)
    gradient = on_two(jax.grad(loss), check_vma=False)
    np.testing.assert_allclose(gradient[1], jax.grad(loss)(a, cost), rtol=1e-4, atol=1e-5)
    for solver in (loss, lambda a, cost: transport(a, cost, ot=ot).plan[0, 0]):
        with pytest.raises(ValueError, match=r"^EntropicOT\.gradient is 'unrolled', whose gradie"):
            on_two(jax.grad(solver))
