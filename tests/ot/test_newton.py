"""Newton steps where Sinkhorn is slow: exact, never worse, and nothing where it converged."""

from functools import partial

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from otrw_jax.ot.entropic import EntropicOT, ot_loss, transport

from . import reference
from .problems import make_problem, separated_problem, single

value_and_gradient = jax.jit(jax.value_and_grad(ot_loss), static_argnames="ot")
solve = jax.jit(transport, static_argnames="ot")
EARLY = EntropicOT(max_iterations=10)
KINDS = ["balanced", "long tail", "absent", "peaked", "zeros"]


def slow_problem(seed=0):
    """Of 64x10, far from solved after 200 iterations."""
    return separated_problem(64, 10, "balanced", seed=seed)


SLOW = (1, 3, 15)  # Seeds of such problems.


def error_of(solved, a, b, cost, epsilon):
    """L1 error of both marginals, in float64."""
    f, g = np.float64(solved.f), np.float64(solved.g)
    plan = np.exp((f[:, None] + g[None, :] - cost) / epsilon)
    return np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()


def relative_error(gradient, a, b, cost, epsilon):
    exact = reference.gradient(a, b, cost, epsilon)
    gradient = np.float64(gradient)
    return np.linalg.norm(gradient - gradient.mean() - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_separated_classes(kind, epsilon):
    """After ten iterations, of which most of these problems take hundreds."""
    ot = EntropicOT(epsilon, max_iterations=10)
    for shape, cost in (((16, 10), "combined"), ((50, 2), "combined"), ((16, 10), "label")):
        a, b, matrix = separated_problem(*shape, kind, cost)
        value, gradient = value_and_gradient(*single(a, matrix, b), ot=ot)
        solved = solve(*single(a, matrix, b), ot=ot)
        assert solved.converged and error_of(solved, a, b, matrix, epsilon) < 1e-4
        wanted = reference.loss(a, b, matrix, epsilon)
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
        assert relative_error(gradient, a, b, matrix, epsilon) < 1e-4


def test_more_atoms_than_examples():
    a, b, matrix = make_problem(16, 100, "combined")
    ot = EntropicOT(0.01, max_iterations=10)
    value, gradient = value_and_gradient(*single(a, matrix, b), ot=ot)
    solved = solve(*single(a, matrix, b), ot=ot)
    assert solved.newton_steps > 0 and solved.converged
    np.testing.assert_allclose(value, reference.loss(a, b, matrix, 0.01), rtol=1e-4)
    assert relative_error(gradient, a, b, matrix, 0.01) < 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_a_small_epsilon_at_the_default_iterations(seed):
    """Two hundred iterations leave gradients wrong by half here."""
    a, b, matrix = make_problem(16, 10, "combined", seed=seed)
    ot = EntropicOT(0.002)
    value, gradient = value_and_gradient(*single(a, matrix, b), ot=ot)
    np.testing.assert_allclose(value, reference.loss(a, b, matrix, 0.002), rtol=1e-4)
    assert relative_error(gradient, a, b, matrix, 0.002) < 1e-4


def test_slow_problems_at_the_default():
    for seed in SLOW:
        a, b, matrix = slow_problem(seed)
        alone = solve(*single(a, matrix, b), ot=EntropicOT(newton=False))
        assert not alone.converged and alone.newton_steps == 0
        solved = solve(*single(a, matrix, b), ot=EntropicOT())
        assert solved.converged and solved.iterations == 200 and 0 < solved.newton_steps < 10
        _, gradient = value_and_gradient(*single(a, matrix, b), ot=EntropicOT())
        assert relative_error(gradient, a, b, matrix, 0.1) < 1e-4


def test_what_sinkhorn_solves_is_left_as_it_is():
    for seed in range(3):
        problem = single(*make_problem(16, 10, seed=seed)[::2])
        for with_, without in zip(
            jax.tree.leaves((solve(*problem), value_and_gradient(*problem))),
            jax.tree.leaves(
                (
                    solve(*problem, ot=EntropicOT(newton=False)),
                    value_and_gradient(*problem, ot=EntropicOT(newton=False)),
                )
            ),
            strict=True,
        ):
            np.testing.assert_array_equal(with_, without)


@pytest.mark.parametrize(
    "ot", [EntropicOT(max_iterations=2, threshold=0.0), EntropicOT(gradient="unrolled")]
)
def test_a_number_of_iterations_that_is_asked_for_is_kept(ot):
    a, b, matrix = slow_problem(SLOW[0])
    solved = solve(*single(a, matrix, b), ot=ot)
    assert solved.iterations == ot.max_iterations and solved.newton_steps == 0
    assert not solved.converged


def test_a_batch_takes_steps_for_those_that_need_them():
    problems = [single(*slow_problem(seed)) for seed in (0, SLOW[0], 2, SLOW[1])]
    a, b, cost = (jnp.stack(arrays) for arrays in zip(*problems, strict=True))
    together = jax.jit(jax.vmap(partial(transport, ot=EntropicOT())))(a, cost, b)
    sinkhorn = jax.jit(jax.vmap(partial(transport, ot=EntropicOT(newton=False))))(a, cost, b)
    assert not sinkhorn.converged[1] and sinkhorn.converged[0] and together.converged.all()
    for place, (one_a, one_b, one_cost) in enumerate(problems):
        alone = solve(one_a, one_cost, one_b, ot=EntropicOT())
        assert together.newton_steps[place] == alone.newton_steps
        np.testing.assert_allclose(together.plan[place], alone.plan, atol=2e-6)
        if sinkhorn.converged[place]:
            assert together.newton_steps[place] == 0
            np.testing.assert_array_equal(together.f[place], sinkhorn.f[place])


def test_inside_pmap_and_shard_map():
    devices = jax.devices("cpu")[:2]
    problems = [single(*slow_problem(seed)) for seed in SLOW[:2]]
    a, b, cost = (jnp.stack(arrays) for arrays in zip(*problems, strict=True))
    function = jax.value_and_grad(partial(ot_loss, ot=EARLY))
    spread = jax.pmap(function, devices=devices)(a, cost, b)

    def one_row(a, cost, b):
        return jax.tree.map(lambda x: x[None], function(a[0], cost[0], b[0]))

    mesh = jax.sharding.Mesh(np.array(devices), "x")
    sharded = jax.jit(jax.shard_map(one_row, mesh=mesh, in_specs=P("x"), out_specs=P("x")))
    for place, (one_a, one_b, one_cost) in enumerate(problems):
        value, gradient = value_and_gradient(one_a, one_cost, one_b, ot=EARLY)
        for values, gradients in (spread, sharded(a, cost, b)):
            np.testing.assert_allclose(values[place], value, rtol=1e-5)
            difference = np.float64(gradients[place]) - gradient
            np.testing.assert_allclose(difference, difference.mean(), atol=1e-4)


def test_in_float64_and_twice_differentiated():
    a, b, matrix = separated_problem(8, 4, "balanced")
    with jax.enable_x64(True):
        ot = EntropicOT(0.05, max_iterations=3, threshold=1e-12)
        first = jax.jit(jax.grad(lambda a: ot_loss(a, jnp.asarray(matrix), jnp.asarray(b), ot=ot)))
        solved = jax.jit(partial(transport, ot=ot))(*map(jnp.asarray, (a, matrix, b)))
        assert solved.newton_steps > 0 and solved.marginal_error < 1e-12
        assert relative_error(first(a), a, b, matrix, 0.05) < 1e-8
        direction = a * np.random.default_rng(0).normal(size=8)
        direction = direction - a * direction.sum()
        second = jax.jit(jax.grad(lambda a: jnp.vdot(jnp.asarray(direction), first(a))))(a)
        slope = (first(a + 1e-4 * direction) - first(a - 1e-4 * direction)) / 2e-4
    found, wanted = (np.vdot(x, direction) for x in (second, slope))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("shape", [(40, 10), (10, 40)])
def test_masses_of_zero(shape):
    """Of both sides, with costs of padding far beyond the others: one-sided derivatives."""
    a, b, matrix = make_problem(*shape, "combined", "zeros", seed=1)
    b = np.where(np.arange(shape[1]) % 4 == 1, 0, b)
    b = b / b.sum()
    ot = EntropicOT(0.02, max_iterations=3)
    solved = solve(*single(a, matrix, b), ot=ot)
    assert solved.converged and solved.newton_steps > 0
    plan = np.float64(solved.plan)
    assert not plan[a == 0].any() and not plan[:, b == 0].any()
    np.testing.assert_allclose(plan, reference.sinkhorn(a, b, matrix, 0.02)[0], atol=1e-5)
    _, gradient = value_and_gradient(*single(a, matrix, b), ot=ot)
    exact = [
        reference.one_sided_difference(a, b, matrix, 0.02, np.eye(shape[0])[i] - a, step=1e-6)
        for i in np.flatnonzero(a == 0)[:2]
    ]
    found = [gradient[i] - np.vdot(a, gradient) for i in np.flatnonzero(a == 0)[:2]]
    np.testing.assert_allclose(found, exact, rtol=1e-3)
    padded = np.where((a == 0)[:, None], 50.0, matrix)
    far = solve(*single(a, padded, b), ot=ot)
    assert far.converged
    np.testing.assert_allclose(far.plan, plan, atol=1e-5)


FAMILIES = ["separated", "duplicated rows", "constant", "label", "peaked", "one example", "far"]


@hypothesis.given(
    st.sampled_from(FAMILIES),
    st.sampled_from([(16, 10), (10, 16)]),
    st.sampled_from([EntropicOT(epsilon, 7) for epsilon in (1.0, 0.1, 0.01, 0.001)]),
    st.integers(0, 10**6),
)
@hypothesis.example("constant", (16, 10), EntropicOT(0.001, 7), 108)
@hypothesis.example("constant", (16, 10), EntropicOT(0.001, 7), 1653)
@hypothesis.settings(max_examples=100, deadline=None)
def test_never_worse_than_sinkhorn_alone(family, shape, ot, seed):
    """But for rounding: two programs round potentials, as large as the cost, each its own way.

    Both potentials, their sum and the logarithm that gives them: four roundings of an exponent.
    """
    rng = np.random.default_rng(seed)
    a, b, cost = separated_problem(*shape, KINDS[seed % 5], seed=seed)
    if family == "duplicated rows":
        cost[:] = cost[:1]
    elif family == "constant":
        cost[:] = rng.uniform(0, 2)
    elif family == "label":
        cost = np.round(cost / 2)
    elif family == "peaked":
        a = np.exp(rng.normal(size=len(a)) * 8)
    elif family == "one example":
        a = np.eye(len(a))[seed % len(a)]
    elif family == "far":
        cost = cost * 20
    a = a / a.sum()
    problem = single(a, cost, b)
    alone = solve(*problem, ot=EntropicOT(ot.epsilon, 7, newton=False))
    solved = solve(*problem, ot=ot)
    rounding = 4 * np.finfo(np.float32).eps * (4 + np.abs(cost).max() / ot.epsilon)
    assert solved.marginal_error <= alone.marginal_error + rounding
    assert np.isfinite(solved.plan).all() and (np.asarray(solved.plan) >= 0).all()
    value, gradient = value_and_gradient(*problem, ot=ot)
    assert np.isfinite(gradient).all() and -1e-5 <= value <= cost.max() * (1 + 1e-3)
