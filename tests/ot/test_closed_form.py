"""The closed form against the optimality conditions of the problem it solves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.ot.closed_form import optimal_weights
from otrw_jax.ot.costs import label_cost

from . import reference

EPSILON = 0.2
RNG = np.random.default_rng(0)
COST = RNG.uniform(0, 1, (24, 5)).astype(np.float32)
META_WEIGHTS = RNG.dirichlet(np.full(5, 3.0))


def test_minimises_the_regularised_value_over_the_simplex():
    weights = np.float64(optimal_weights(COST, jnp.float32(META_WEIGHTS), epsilon=EPSILON))
    weights = weights / weights.sum()

    def value(a):
        return reference.regularised_value(a, META_WEIGHTS, COST, EPSILON)

    # The value is convex: stationary along a basis of the tangent space means optimal.
    for i in range(24):
        direction = weights[i] * (np.eye(24)[i] - weights)
        slope = (value(weights + 1e-3 * direction) - value(weights - 1e-3 * direction)) / 2e-3
        assert abs(slope) < 1e-6 * np.linalg.norm(direction)
    for seed in range(5):
        other = np.random.default_rng(seed).dirichlet(np.full(24, 2.0))
        assert value(other) > value(weights)


def test_sums_to_one_and_defaults_to_uniform_meta_weights():
    weights = optimal_weights(COST, epsilon=EPSILON)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
    given = optimal_weights(COST, jnp.full((5,), 0.2), epsilon=EPSILON)
    np.testing.assert_allclose(weights, given, rtol=1e-6)
    assert not np.allclose(weights, optimal_weights(COST, jnp.float32(META_WEIGHTS)), rtol=1e-2)
    jitted = jax.jit(partial(optimal_weights, epsilon=EPSILON))(COST)
    np.testing.assert_allclose(jitted, weights, rtol=1e-5)


def test_a_large_shift_of_the_cost_changes_nothing():
    shifted = optimal_weights(COST + jnp.arange(5.0)[None, :] * 200, epsilon=EPSILON)
    np.testing.assert_allclose(shifted, optimal_weights(COST, epsilon=EPSILON), rtol=5e-3)


def test_label_cost_balances_the_classes_up_to_leakage():
    labels = np.repeat(np.arange(4), [40, 10, 4, 2])
    weights = np.asarray(optimal_weights(label_cost(labels, np.arange(4)), epsilon=0.1))
    by_class = np.bincount(labels, weights)
    leakage = np.exp(-1 / 0.1) * len(labels) / 2  # Of a column's mass, the rarest class's the most.
    np.testing.assert_allclose(by_class, 1 / 4, atol=leakage)
    for c in range(4):
        np.testing.assert_allclose(weights[labels == c], weights[labels == c][0], rtol=1e-6)
    exact = np.exp(-10 * (labels[:, None] != np.arange(4)[None, :]))
    np.testing.assert_allclose(weights, (exact / exact.sum(0)).mean(1), rtol=1e-5)


def test_masked_examples_have_no_weight_and_no_influence():
    padded = jnp.concatenate([COST, jnp.zeros((3, 5))])
    mask = jnp.array([1.0] * 24 + [0.0] * 3)
    weights = optimal_weights(padded, epsilon=EPSILON, mask=mask)
    np.testing.assert_array_equal(weights[24:], np.zeros(3))
    np.testing.assert_allclose(weights[:24], optimal_weights(COST, epsilon=EPSILON), rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda c: optimal_weights(c, epsilon=EPSILON, mask=mask)[0]))(
        padded
    )
    assert np.isfinite(gradient).all() and not gradient[24:].any() and gradient[:24].any()


def test_rows_spread_over_eight_devices():
    mask = np.ones(24, np.float32)
    mask[:4] = 0  # The first device holds padding alone.
    function = partial(optimal_weights, meta_weights=jnp.float32(META_WEIGHTS), epsilon=EPSILON)
    spread = jax.pmap(
        lambda cost, mask: function(cost, mask=mask, axis_name="batch"),
        axis_name="batch",
        devices=jax.devices("cpu")[:8],
    )(COST.reshape(8, 3, 5), mask.reshape(8, 3))
    np.testing.assert_allclose(spread.reshape(-1), function(COST, mask=mask), rtol=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_epsilon_must_be_positive(epsilon):
    with pytest.raises(ValueError, match=rf"epsilon is {epsilon}; it must be positive"):
        optimal_weights(COST, epsilon=epsilon)


def test_shapes_are_checked():
    with pytest.raises(AssertionError):
        optimal_weights(COST, jnp.ones(4))
    with pytest.raises(AssertionError):
        optimal_weights(COST, mask=jnp.ones(5))
