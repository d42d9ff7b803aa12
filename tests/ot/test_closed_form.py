"""The closed form against the optimality conditions of the problem it solves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from otrw_jax.ot.closed_form import optimal_weights, optimal_weights_by_rows
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
    with pytest.raises(ValueError, match=rf"epsilon is {epsilon}; it must be above 0"):
        optimal_weights(COST, epsilon=epsilon)


def by_rows(cost, meta_weights=None, **options):
    """`optimal_weights_by_rows` of a whole cost, seven rows at a time."""
    cost = jnp.asarray(cost)
    if meta_weights is None:
        meta_weights = jnp.full((cost.shape[1],), 1 / cost.shape[1])
    return optimal_weights_by_rows(
        lambda rows: cost[rows], cost.shape[0], meta_weights, rows=7, **options
    )


@pytest.mark.parametrize("function", [optimal_weights, by_rows])
def test_epsilon_may_be_traced(function):
    weights = jax.jit(lambda cost, epsilon: function(cost, epsilon=epsilon))
    np.testing.assert_allclose(weights(COST, EPSILON), optimal_weights(COST, epsilon=EPSILON), 1e-5)
    for epsilon in (0.0, -1.0, np.nan):
        assert np.isnan(weights(COST, epsilon)).all()
    with pytest.raises(ValueError, match="epsilon is nan; it must be above 0 and finite"):
        function(COST, epsilon=float("nan"))


@pytest.mark.parametrize("function", [optimal_weights, by_rows])
def test_any_dtype(function):
    exact = optimal_weights(COST, epsilon=EPSILON)
    for dtype in (jnp.float16, jnp.bfloat16):
        found = function(jnp.asarray(COST, dtype), epsilon=EPSILON)
        assert found.dtype == dtype
        np.testing.assert_allclose(np.float32(found), exact, rtol=0.05)
    whole = np.round(2 * COST).astype(int)
    np.testing.assert_allclose(
        function(whole, epsilon=EPSILON), function(np.float32(whole), epsilon=EPSILON), rtol=1e-6
    )
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        assert function(jnp.asarray(COST, jnp.float64), epsilon=EPSILON).dtype == jnp.float64
        assert function(jnp.asarray(COST), epsilon=EPSILON).dtype == jnp.float32


@pytest.mark.parametrize("function", [optimal_weights, by_rows])
def test_what_is_not_a_number_stays_none(function):
    cost = np.array(COST)
    cost[20, 3] = np.nan
    assert np.isnan(function(cost, epsilon=EPSILON)).all()
    meta_weights = jnp.float32(META_WEIGHTS).at[1].set(jnp.nan)
    assert np.isnan(function(COST, meta_weights, epsilon=EPSILON)).all()


@pytest.mark.parametrize("function", [optimal_weights, by_rows])
def test_inside_shard_map(function):
    """Rows spread over two devices, and a problem on each."""
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:2]), "x")
    spread = jax.shard_map(
        lambda cost: function(cost, epsilon=EPSILON, axis_name="x"),
        mesh=mesh,
        in_specs=P("x"),
        out_specs=P("x"),
    )
    np.testing.assert_allclose(spread(COST), optimal_weights(COST, epsilon=EPSILON), rtol=1e-5)


@pytest.mark.usefixtures("signatures_unchecked")
def test_shapes_are_checked():
    with pytest.raises(
        ValueError, match=r"meta_weights has the shape \(4,\); it must be \[m = 5\]"
    ):
        optimal_weights(COST, jnp.ones(4))
    with pytest.raises(ValueError, match=r"mask has the shape \(5,\); it must be \[n = 24\]"):
        optimal_weights(COST, mask=jnp.ones(5))
    with pytest.raises(ValueError, match=r"mask has the shape \(5,\); it must be \[24\]"):
        by_rows(COST, mask=jnp.ones(5))
    with pytest.raises(ValueError, match="count is 0 and rows 8192; both must be at least 1"):
        optimal_weights_by_rows(lambda rows: COST[rows], 0, jnp.ones(5))
