"""Costs against NumPy, and at vectors without a direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.ot.costs import combined_cost, feature_cost, label_cost

RNG = np.random.default_rng(0)
TRAIN, META = (RNG.normal(size=(size, 6)).astype(np.float32) for size in (9, 4))
TRAIN_LABELS, META_LABELS = RNG.integers(0, 3, 9), np.array([0, 1, 2, 1])


def numpy_feature_cost(x, y):
    x, y = np.float64(x), np.float64(y)
    return np.array([[1 - p @ q / np.sqrt(p @ p) / np.sqrt(q @ q) for q in y] for p in x])


def test_label_cost():
    cost = label_cost(TRAIN_LABELS, META_LABELS)
    wanted = [[float(p != q) for q in META_LABELS] for p in TRAIN_LABELS]
    assert cost.dtype == jnp.float32
    np.testing.assert_array_equal(cost, wanted)


def test_feature_cost():
    wanted = numpy_feature_cost(TRAIN, META)
    np.testing.assert_allclose(feature_cost(TRAIN, META), wanted, atol=1e-6)
    np.testing.assert_allclose(jax.jit(feature_cost)(TRAIN, META), wanted, atol=1e-6)
    np.testing.assert_allclose(feature_cost(1e-3 * TRAIN, 1e3 * META), wanted, atol=1e-6)


def test_whole_numbers_of_64_bits_do_not_wrap():
    train, meta = (np.rint(2.0**40 * np.float64(x)).astype(np.int64) for x in (TRAIN, META))
    np.testing.assert_allclose(
        feature_cost(train, meta), numpy_feature_cost(TRAIN, META), atol=1e-6
    )
    labels = np.array([0, 2**32])
    with pytest.raises(ValueError, match=r"train labels have 4294967296, which int32 does not"):
        label_cost(labels, labels)


def test_feature_cost_of_equal_opposite_and_orthogonal_vectors():
    cost = feature_cost(jnp.array([[2.0, 0.0]]), jnp.array([[3.0, 0.0], [-1.0, 0.0], [0.0, 5.0]]))
    np.testing.assert_allclose(cost, [[0.0, 2.0, 1.0]], atol=1e-6)


@pytest.mark.parametrize(("feature_weight", "label_weight"), [(1.0, 1.0), (0.5, 0.1)])
def test_combined_cost(feature_weight, label_weight):
    cost = combined_cost(
        TRAIN,
        TRAIN_LABELS,
        META,
        META_LABELS,
        feature_weight=feature_weight,
        label_weight=label_weight,
    )
    label = TRAIN_LABELS[:, None] != META_LABELS[None, :]
    wanted = feature_weight * numpy_feature_cost(TRAIN, META) + label_weight * label
    np.testing.assert_allclose(cost, wanted, atol=1e-6)


def test_gradient_of_the_feature_cost():
    def weighted(x, y):
        return jnp.vdot(jnp.arange(36.0).reshape(9, 4), feature_cost(x, y))

    gradients = jax.jit(jax.grad(weighted, argnums=(0, 1)))(TRAIN, META)
    for place, (gradient, x) in enumerate(zip(gradients, (TRAIN, META), strict=True)):
        change = RNG.normal(size=x.shape)
        ends = []
        for sign in (1, -1):
            inputs = [np.float64(TRAIN), np.float64(META)]
            inputs[place] = inputs[place] + sign * 1e-6 * change
            ends.append(np.vdot(np.arange(36.0).reshape(9, 4), numpy_feature_cost(*inputs)))
        np.testing.assert_allclose(np.vdot(gradient, change), (ends[0] - ends[1]) / 2e-6, rtol=1e-4)


def test_a_zero_vector_costs_one_and_has_no_gradient():
    train = jnp.asarray(TRAIN).at[2].set(0.0)
    meta = jnp.asarray(META).at[1].set(0.0)
    cost = feature_cost(train, meta)
    np.testing.assert_array_equal(cost[2], np.ones(4))
    np.testing.assert_array_equal(cost[:, 1], np.ones(9))
    total = jax.jit(jax.grad(lambda x, y: feature_cost(x, y).sum(), argnums=(0, 1)))
    by_train, by_meta = total(train, meta)
    assert np.isfinite(by_train).all() and np.isfinite(by_meta).all()
    assert not by_train[2].any() and not by_meta[1].any()
    assert by_train[0].any() and by_meta[0].any()


def test_a_nan_stays_one():
    cost = np.asarray(feature_cost(jnp.asarray(TRAIN).at[2, 1].set(jnp.nan), META))
    assert np.isnan(cost[2]).all()
    others = np.delete(np.arange(9), 2)
    np.testing.assert_array_equal(cost[others], np.asarray(feature_cost(TRAIN, META))[others])


def test_half_precision_does_not_overflow():
    """The squares of these numbers are beyond float16."""
    large = (1000 * TRAIN / np.abs(TRAIN).max()).astype(np.float16)
    cost = feature_cost(large, META.astype(np.float16))
    assert cost.dtype == np.float32
    np.testing.assert_allclose(cost, numpy_feature_cost(TRAIN, META), atol=5e-3)


@pytest.mark.usefixtures("signatures_unchecked")
def test_a_label_of_no_class_agrees_with_none():
    padded = np.array([0, -1, 2])
    wanted = [[0, 1, 1], [1, 1, 1], [1, 1, 0]]
    np.testing.assert_array_equal(label_cost(padded, np.array([0, -1, 2])), wanted)
    with pytest.raises(ValueError, match=r"train labels are whole numbers; 0\.5 is none"):
        label_cost(np.array([0, 0.5]), padded)


def test_mixed_dtypes_where_promotion_is_strict():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        for train in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64, jnp.int32):
            found = combined_cost(
                jnp.asarray(TRAIN).astype(train), TRAIN_LABELS, jnp.asarray(META), META_LABELS
            )
            assert found.dtype == (jnp.float64 if train == jnp.float64 else jnp.float32)


def test_a_weight_that_is_not_a_number_is_refused():
    for name in ("feature_weight", "label_weight"):
        with pytest.raises(ValueError, match=f"{name} is nan; it must be finite"):
            combined_cost(TRAIN, TRAIN_LABELS, META, META_LABELS, **{name: float("nan")})


@pytest.mark.usefixtures("signatures_unchecked")
def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"meta_features has the shape \(4, 5\); .* d = 6\]"):
        feature_cost(TRAIN, META[:, :5])
    with pytest.raises(ValueError, match=r"train_labels has the shape \(8,\); it must be \[n = 9"):
        combined_cost(TRAIN, TRAIN_LABELS[:8], META, META_LABELS)
    with pytest.raises(ValueError, match=r"train_labels has the shape \(9, 1\); it must be \[n\]"):
        label_cost(TRAIN_LABELS[:, None], META_LABELS)
