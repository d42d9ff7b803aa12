"""Gradients of the OT loss against finite differences and closed formulas."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.ot.closed_form import optimal_weights
from otrw_jax.ot.entropic import EntropicOT, ot_loss, transport
from tests.ot.solved import ENVELOPE, EPSILON, PRECISE, SMALL, assert_close, gradients_of, tangents

from . import reference
from .problems import make_problem, single

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


@pytest.mark.parametrize("epsilon", [0.01, 0.002])
def test_loss_and_gradient_at_a_small_epsilon(epsilon):
    """Four examples of one class and one of the other: 0.3 of the mass has to change its class."""
    labels = np.array([0, 0, 0, 0, 1])
    cost = (labels[:, None] != np.arange(2)[None, :]).astype(float)
    value, gradient, _, _ = gradients_of(np.full(5, 0.2), [0.5, 0.5], cost, EntropicOT(epsilon))
    np.testing.assert_allclose(value, 0.3, rtol=1e-4)
    middle = (gradient.max() + gradient.min()) / 2
    np.testing.assert_allclose(gradient - middle, np.where(labels == 0, 0.5, -0.5), atol=1e-4)


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
