"""EntropicOT, transport and ot_loss against a float64 NumPy reference."""

from functools import partial

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.sharding import PartitionSpec as P

from otrw_jax.ot.arrays import require_masses
from otrw_jax.ot.closed_form import optimal_weights
from otrw_jax.ot.entropic import EntropicOT, ot_loss, transport

from . import reference
from .problems import make_problem, single

EPSILON = 0.1
PRECISE = EntropicOT(EPSILON, threshold=1e-6, max_iterations=2000)
ENVELOPE = EntropicOT(EPSILON, threshold=1e-6, max_iterations=2000, gradient="envelope")

value_and_gradients = jax.jit(jax.value_and_grad(ot_loss, argnums=(0, 1, 2)), static_argnames="ot")
solve = jax.jit(transport, static_argnames="ot")


def gradients_of(a, b, cost, ot=PRECISE):
    """Loss and its gradients in weights, cost and meta weights, by the library in float32."""
    a, b, cost = single(a, b, cost)
    value, gradients = value_and_gradients(a, cost, b, ot=ot)
    return float(value), *(np.asarray(g, np.float64) for g in gradients)


def tangents(a, count, rng):
    """Directions along the simplex that leave zero weights at zero."""
    directions = a * rng.normal(size=(count, len(a)))
    return directions - a * directions.sum(1, keepdims=True)


def assert_close(found, wanted, tolerance=1e-4):
    """Relative error in norm."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted)


SMALL = [(50, 2), (16, 10), (16, 100), (64, 10)]
CASES = [
    (shape, cost, weights)
    for shape in SMALL
    for cost in ("combined", "feature", "label")
    for weights in ("random", "peaked", "zeros")
]
CASES += [((128, 1000), "feature", "random"), ((64, 8142), "feature", "peaked")]


@pytest.mark.parametrize(("shape", "cost", "weights"), CASES)
def test_gradient_in_weights(shape, cost, weights):
    a, b, matrix = make_problem(*shape, cost, weights)
    value, gradient, _, _ = gradients_of(a, b, matrix)
    np.testing.assert_allclose(value, reference.loss(a, b, matrix, EPSILON), rtol=1e-4)
    assert_close(gradient - gradient.mean(), reference.gradient(a, b, matrix, EPSILON))
    directions = tangents(a, 3 if shape in SMALL else 1, np.random.default_rng(1))
    slopes = [reference.finite_difference(a, b, matrix, EPSILON, d) for d in directions]
    assert_close(directions @ gradient, slopes)


@pytest.mark.parametrize("shape", SMALL)
def test_gradient_at_a_zero_weight_is_the_one_sided_derivative(shape):
    a, b, matrix = make_problem(*shape, "combined", "zeros")
    _, gradient, _, _ = gradients_of(a, b, matrix)
    directions = [np.eye(len(a))[i] - a for i in np.flatnonzero(a == 0)[:4]]
    slopes = [reference.one_sided_difference(a, b, matrix, EPSILON, d) for d in directions]
    assert_close(np.stack(directions) @ gradient, slopes)


@pytest.mark.parametrize("cost", ["combined", "label"])
def test_a_class_absent_from_the_batch(cost):
    a, b, matrix = make_problem(64, 10, cost, classes=[0, 1, 2, 3, 7])
    value, gradient, _, _ = gradients_of(a, b, matrix)
    np.testing.assert_allclose(value, reference.loss(a, b, matrix, EPSILON), rtol=1e-4)
    assert_close(gradient - gradient.mean(), reference.gradient(a, b, matrix, EPSILON))


def test_padding_changes_nothing():
    a, b, matrix = make_problem(16, 10)
    padding = np.random.default_rng(2).uniform(0, 5, (48, 10))
    value, gradient, by_cost, by_meta = gradients_of(a, b, matrix)
    padded = gradients_of(np.append(a, np.zeros(48)), b, np.concatenate([matrix, padding]))
    np.testing.assert_allclose(padded[0], value, rtol=1e-6)
    assert_close(padded[1][:16] - padded[1][:16].mean(), gradient - gradient.mean(), 1e-5)
    assert np.isfinite(padded[1]).all()
    assert_close(padded[2][:16], by_cost, 1e-5)
    np.testing.assert_allclose(padded[2][16:], 0, atol=1e-12)
    assert_close(padded[3] - padded[3].mean(), by_meta - by_meta.mean(), 1e-5)


def test_one_example_and_one_atom():
    value, gradient, by_cost, by_meta = gradients_of([1.0], [1.0], [[0.7]])
    np.testing.assert_allclose(value, 0.7, rtol=1e-6)
    np.testing.assert_allclose(by_cost, [[1.0]], rtol=1e-5)
    assert np.isfinite(gradient).all() and np.isfinite(by_meta).all()


@pytest.mark.parametrize("shape", [(16, 10), (16, 100)])
def test_gradient_in_cost_and_meta_weights(shape):
    a, _, matrix = make_problem(*shape, "feature")
    rng = np.random.default_rng(3)
    b = rng.dirichlet(np.full(shape[1], 5.0))
    _, _, by_cost, by_meta = gradients_of(a, b, matrix)
    step = 1e-5
    changes = rng.normal(size=(3, *shape))
    slopes = [
        sum(s * reference.loss(a, b, matrix + s * step * d, EPSILON) for s in (1, -1)) / (2 * step)
        for d in changes
    ]
    assert_close(np.tensordot(changes, by_cost, 2), slopes)
    directions = tangents(b, 3, rng)
    slopes = [
        sum(s * reference.loss(a, b + s * step * d, matrix, EPSILON) for s in (1, -1)) / (2 * step)
        for d in directions
    ]
    assert_close(directions @ by_meta, slopes)


def test_gradients_of_plan_and_potentials():
    """In weights, cost and meta weights; with "envelope" transport differentiates implicitly."""
    a, b, matrix = make_problem(16, 10, "feature")
    rng = np.random.default_rng(4)
    of_plan, of_f, of_g = (rng.normal(size=size) for size in ((16, 10), 16, 10))
    of_f, of_g = of_f - of_f.mean(), of_g - of_g.mean()  # Potentials are known up to a constant.

    def library(a, b, cost):
        solved = transport(a, cost, b, ot=ENVELOPE)
        return jnp.vdot(of_plan, solved.plan) + jnp.vdot(of_f, solved.f) + jnp.vdot(of_g, solved.g)

    def exact(a, b, cost):
        plan, f, g = reference.sinkhorn(a, b, cost, EPSILON)
        return np.vdot(of_plan, plan) + of_f @ f + of_g @ g

    gradients = jax.jit(jax.grad(library, argnums=(0, 1, 2)))(*single(a, b, matrix))
    step = 1e-5
    changes = tangents(a, 3, rng), tangents(b, 3, rng), rng.normal(size=(3, 16, 10))
    for place, (gradient, directions) in enumerate(zip(gradients, changes, strict=True)):
        slopes = []
        for direction in directions:
            ends = []
            for sign in (1, -1):
                arguments = [a, b, matrix]
                arguments[place] = arguments[place] + sign * step * direction
                ends.append(exact(*arguments))
            slopes.append((ends[0] - ends[1]) / (2 * step))
        assert_close([np.vdot(d, gradient) for d in directions], slopes, 2e-4)


def test_unrolled_gradient_is_the_implicit_one_where_converged():
    a, b, matrix = make_problem(16, 10, "feature")
    implicit = gradients_of(a, b, matrix)
    unrolled = gradients_of(a, b, matrix, EntropicOT(EPSILON, 40, 0.0, "unrolled"))
    np.testing.assert_allclose(unrolled[0], implicit[0], rtol=1e-6)
    for one, other in zip(unrolled[1::2], implicit[1::2], strict=True):
        assert_close(one - one.mean(), other - other.mean(), 1e-4)
    assert_close(unrolled[2], implicit[2], 1e-4)


def test_unrolled_gradient_is_that_of_the_iterations_run():
    """Two iterations from zero potentials, by finite differences of the same two in NumPy."""
    a, b, matrix = make_problem(16, 10)

    def two_iterations(a):
        plan, _, _ = reference.sinkhorn(a, b, matrix, EPSILON, iterations=2)
        return np.sum(matrix * plan)

    _, gradient, _, _ = gradients_of(a, b, matrix, EntropicOT(EPSILON, 2, 0.0, "unrolled"))
    directions = tangents(a, 4, np.random.default_rng(5))
    slopes = [
        (two_iterations(a + 1e-5 * d) - two_iterations(a - 1e-5 * d)) / 2e-5 for d in directions
    ]
    assert_close(directions @ gradient, slopes)


def test_envelope_gradient_is_that_of_the_regularised_value():
    a, b, matrix = make_problem(16, 10)
    value, gradient, by_cost, by_meta = gradients_of(a, b, matrix, ENVELOPE)
    np.testing.assert_allclose(value, gradients_of(a, b, matrix)[0], rtol=1e-6)
    plan, f, g = reference.sinkhorn(a, b, matrix, EPSILON)
    assert_close(gradient - gradient.mean(), f - f.mean())
    assert_close(by_meta - by_meta.mean(), g - g.mean())
    assert_close(by_cost, plan)
    directions = tangents(a, 3, np.random.default_rng(6))
    slopes = [
        reference.finite_difference(
            a, b, matrix, EPSILON, d, value=reference.regularised_value, step=1e-4
        )
        for d in directions
    ]
    assert_close(directions @ gradient, slopes)
    # The loss holds no entropy term: its own gradient is another one.
    loss_gradient = reference.gradient(a, b, matrix, EPSILON)
    assert np.linalg.norm(loss_gradient - (f - f.mean())) > 0.1 * np.linalg.norm(loss_gradient)


def test_envelope_gradient_is_constant_at_the_optimal_weights():
    _, b, matrix = make_problem(16, 10)
    weights = optimal_weights(*single(matrix), epsilon=EPSILON)
    _, gradient, _, _ = gradients_of(weights, b, matrix, ENVELOPE)
    assert np.ptp(gradient) < 1e-5
    uniform = gradients_of(np.full(16, 1 / 16), b, matrix, ENVELOPE)[1]
    assert np.ptp(uniform) > 1e-2


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


@pytest.mark.parametrize("epsilon", [0.01, 0.002])
def test_loss_and_gradient_at_a_small_epsilon(epsilon):
    """Four examples of one class and one of the other: 0.3 of the mass has to change its class."""
    labels = np.array([0, 0, 0, 0, 1])
    cost = (labels[:, None] != np.arange(2)[None, :]).astype(float)
    value, gradient, _, _ = gradients_of(np.full(5, 0.2), [0.5, 0.5], cost, EntropicOT(epsilon))
    np.testing.assert_allclose(value, 0.3, rtol=1e-4)
    middle = (gradient.max() + gradient.min()) / 2
    np.testing.assert_allclose(gradient - middle, np.where(labels == 0, 0.5, -0.5), atol=1e-4)


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


@pytest.mark.parametrize("epsilon", [0.01, 0.002])
def test_gradient_where_classes_are_hardly_linked(epsilon):
    """A balanced batch with equal weights: mass stays in its class, up to exp(-1 / epsilon)."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 2)
    away = labels[:, None] != np.arange(10)[None, :]
    cost = np.float64(np.float32(away + rng.uniform(0, 0.1, (20, 10)) * away))
    _, gradient, by_cost, by_meta = gradients_of(
        np.full(20, 0.05), np.full(10, 0.1), cost, EntropicOT(epsilon)
    )
    assert max(np.ptp(gradient), np.ptp(by_meta)) <= 2 * np.ptp(cost)
    np.testing.assert_allclose(by_cost.sum(), 1, atol=1e-2)


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


@pytest.mark.parametrize("gradient", ["implicit", "envelope"])
def test_reverse_over_reverse(gradient):
    a, b, matrix = make_problem(6, 4, "feature")
    with jax.enable_x64(True):
        ot = EntropicOT(EPSILON, threshold=1e-12, max_iterations=5000, gradient=gradient)
        first = jax.jit(jax.grad(lambda a: ot_loss(a, jnp.asarray(matrix), jnp.asarray(b), ot=ot)))
        direction = tangents(a, 1, np.random.default_rng(8))[0]
        second = jax.jit(jax.grad(lambda a: jnp.vdot(jnp.asarray(direction), first(a))))(a)
        slope = (first(a + 1e-4 * direction) - first(a - 1e-4 * direction)) / 2e-4
    found, wanted = (np.vdot(x, direction) for x in (second, slope))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


GRADIENTS = ["implicit", "envelope", "unrolled"]


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


HARD_FAMILIES = ["duplicated rows", "constant", "label", "peaked", "one example", "far apart"]


@hypothesis.given(
    st.sampled_from(HARD_FAMILIES),
    st.sampled_from(
        [((16, 10), EntropicOT(0.01)), ((16, 10), EntropicOT(1.0)), ((16, 100), PRECISE)]
    ),
    st.integers(0, 10**6),
)
@hypothesis.settings(max_examples=100, deadline=None)
def test_gradients_are_finite_on_hard_problems(family, setting, seed):
    (n, m), ot = setting
    rng = np.random.default_rng(seed)
    cost = rng.uniform(0, 2, (n, m))
    a = rng.dirichlet(np.ones(n))
    if family == "duplicated rows":
        cost[:] = cost[:1]
    elif family == "constant":
        cost[:] = rng.uniform(0, 2)
    elif family == "label":
        cost = (rng.integers(0, 3, n)[:, None] != rng.integers(0, 3, m)[None, :]).astype(float)
    elif family == "peaked":
        a = np.exp(rng.normal(size=n) * 8)
    elif family == "one example":
        a = np.eye(n)[seed % n]
    else:
        cost = cost * 20
    value, *gradients = gradients_of(a / a.sum(), np.full(m, 1 / m), cost, ot)
    assert all(np.isfinite(g).all() for g in gradients)
    assert -1e-5 <= value <= cost.max() * (1 + 1e-3)


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
