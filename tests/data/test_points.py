import jax
import numpy as np
import pytest

from otrw_jax.data.points import (
    point_preprocessing,
    random_drop,
    random_points,
    random_scale_shift,
)

train_in_jit = jax.jit(point_preprocessing(20).train)
points_in_jit = jax.jit(random_points, static_argnames="count")
drop_in_jit = jax.jit(random_drop, static_argnames="most")


def _keys(seed, batch):
    return jax.random.split(jax.random.key(seed), batch)


def _clouds(batch=6, count=40, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, count, 3)).astype(np.float32)


def _ids(out, cloud):
    """Places in the cloud of the points that came out; each must be one of the cloud's."""
    same = (out[:, None] == cloud[None]).all(-1)
    assert same.any(axis=1).all()
    return same.argmax(axis=1)


def test_random_points_are_distinct_and_in_random_order():
    clouds = _clouds()
    out = np.asarray(points_in_jit(_keys(0, 6), clouds, count=20))
    ids = np.stack([_ids(*pair) for pair in zip(out, clouds, strict=True)])
    assert all(len(set(row)) == 20 for row in ids.tolist())
    assert len(set(ids[:, 0].tolist())) > 1
    assert (np.diff(ids) < 0).any(axis=1).all()


def test_every_point_is_as_likely_at_every_place():
    cloud = np.broadcast_to(_clouds(1, 5), (2000, 5, 3))
    out = np.asarray(points_in_jit(_keys(1, 2000), cloud, count=3))
    for place in range(3):
        counts = np.bincount(_ids(out[:, place], cloud[0]), minlength=5)
        assert counts.min() > 320  # 400 are expected, with a deviation of 18.
        assert counts.max() < 480


def test_dropped_points_become_the_first_and_the_others_stay():
    clouds = _clouds()
    out = np.asarray(drop_in_jit(_keys(2, 6), clouds))
    kept = (out == clouds).all(-1)
    assert kept[:, 0].all()
    assert ((out == clouds[:, :1]).all(-1) | kept).all()
    assert not kept.all()


def test_ratios_of_dropped_points_are_uniform():
    """Of 500 clouds of 400 points, drawn alike: the quantiles of the ratios are a straight line."""
    clouds = np.broadcast_to(_clouds(1, 400), (500, 400, 3))
    out = np.asarray(drop_in_jit(_keys(3, 500), clouds))
    ratios = np.sort(1 - (out == clouds).all(-1).mean(axis=1))
    np.testing.assert_allclose(ratios, 0.875 * (np.arange(500) + 0.5) / 500, atol=0.06)
    # Not the same points in all clouds: within a cloud, drops are independent of place.
    dropped = ~(out == clouds).all(-1)[:, 1:]
    np.testing.assert_allclose(dropped.mean(axis=0), 0.4375, atol=0.1)


def test_no_point_need_be_dropped():
    clouds = _clouds()
    np.testing.assert_array_equal(drop_in_jit(_keys(2, 6), clouds, most=0.0), clouds)


def test_scale_and_shift_are_one_a_cloud_and_within_their_ranges():
    clouds = _clouds(400, 5)
    out = np.asarray(jax.jit(random_scale_shift)(_keys(4, 400), clouds))
    edges, out_edges = clouds[:, 1:] - clouds[:, :1], out[:, 1:] - out[:, :1]
    factors = np.linalg.norm(out_edges, axis=(1, 2)) / np.linalg.norm(edges, axis=(1, 2))
    np.testing.assert_allclose(out_edges, edges * factors[:, None, None], rtol=1e-3, atol=1e-5)
    shifts = (out - clouds * factors[:, None, None]).mean(axis=1)
    for values, low, high in [(factors, 0.8, 1.25), (shifts.ravel(), -0.1, 0.1)]:
        assert values.min() > low - 1e-5
        assert values.max() < high + 1e-5
        even = low + (high - low) * (np.arange(values.size) + 0.5) / values.size
        np.testing.assert_allclose(np.sort(values), even, atol=0.1 * (high - low))
    assert np.abs(np.corrcoef(np.column_stack([factors, shifts]).T) - np.eye(4)).max() < 0.2


def test_training_is_the_parts_in_turn():
    keys, clouds = _keys(5, 6), _clouds()

    @jax.jit
    def parts(keys, clouds):
        to_choose, to_drop, to_move = jax.vmap(lambda key: jax.random.split(key, 3))(keys).T
        some = random_drop(to_drop, random_points(to_choose, clouds, 20))
        return random_scale_shift(to_move, some)

    out = train_in_jit(keys, clouds)
    assert out.shape == (6, 20, 3)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, parts(keys, clouds), rtol=1e-5, atol=1e-6)
    assert not np.allclose(out, train_in_jit(_keys(6, 6), clouds))


def test_a_cloud_comes_out_alike_at_any_place():
    keys, clouds = _keys(7, 6), _clouds()
    np.testing.assert_array_equal(
        train_in_jit(keys[::-1], clouds[::-1])[::-1], train_in_jit(keys, clouds)
    )


def test_points_in_stored_order_where_they_are_not_resampled():
    clouds = _clouds()
    train = jax.jit(point_preprocessing(20, resample=False).train)
    out = np.asarray(train(_keys(8, 6), clouds))
    edges, out_edges = (x[:, 1:20] - x[:, :1] for x in (clouds, out))
    dropped = (out_edges == 0).all(-1)
    factors = out_edges / edges
    for row, gone in zip(factors, dropped, strict=True):
        if not gone.all():
            np.testing.assert_allclose(row[~gone], row[~gone].mean(), rtol=1e-2)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_evaluation_takes_the_first_points_as_they_are(dtype):
    clouds = _clouds().astype(dtype)
    way = point_preprocessing(20)
    assert way.evaluate(clouds).dtype == np.float32
    np.testing.assert_array_equal(way.evaluate(clouds), clouds[:, :20].astype(np.float32))
    plain = point_preprocessing(20, augment=False)
    np.testing.assert_array_equal(plain.train(_keys(0, 6), clouds), way.evaluate(clouds))


def test_the_same_arguments_give_the_same_functions():
    assert point_preprocessing(20).train is point_preprocessing(20).train


def test_refusals():
    keys, clouds = _keys(0, 6), _clouds()
    with pytest.raises(ValueError, match="count is 41 for clouds of 40 points; it must be 1 to 40"):
        point_preprocessing(41).evaluate(clouds)
    with pytest.raises(ValueError, match="count is 0 for clouds of 40 points"):
        random_points(keys, clouds, 0)
    with pytest.raises(ValueError, match=r"random_drop: most is 1.5; it must be in \[0, 1\]"):
        random_drop(keys, clouds, most=1.5)
    with pytest.raises(ValueError, match=r"scale is \(1.25, 0.8\); it must be two positive"):
        random_scale_shift(keys, clouds, scale=(1.25, 0.8))
    with pytest.raises(ValueError, match=r"shift is -0.1; it must be 0 or more"):
        random_scale_shift(keys, clouds, shift=-0.1)


def test_clouds_of_other_shapes_are_told():
    way = point_preprocessing(20)
    for shape in ((40, 3), (2, 40, 4)):
        told = r"point_preprocessing: clouds has shape .*; it must be \(any, any, 3\)"
        with pytest.raises(ValueError, match=told):
            way.evaluate(np.zeros(shape))
        with pytest.raises(ValueError, match=told):
            way.train(_keys(0, 2), np.zeros(shape))
    with pytest.raises(ValueError, match=r"keys has shape \(3,\); it must be \(2,\)"):
        random_drop(_keys(0, 3), np.zeros((2, 40, 3)))
