import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.models.backbones.point_ops import (
    ball_query,
    farthest_points,
    gather_points,
    group,
    largest,
)


def _clouds(batch=3, count=40, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, count, 3)).astype(np.float32)


def _distances(points, others):
    return np.sqrt(((np.float64(points)[:, None] - np.float64(others)[None]) ** 2).sum(-1))


def plain_farthest(cloud, count, start):
    between = _distances(cloud, cloud)
    ids = [start]
    while len(ids) < count:
        ids.append(int(between[:, ids].min(axis=1).argmax()))
    return ids


def plain_ball(radius, size, cloud, centres):
    rows = []
    for to_points in _distances(centres, cloud):
        inside = [place for place, distance in enumerate(to_points) if distance <= radius]
        inside = (inside or [int(to_points.argmin())])[:size]
        rows.append(inside + [inside[0]] * (size - len(inside)))
    return rows


@pytest.mark.parametrize("start", [0, np.array([3, 0, 39])])
def test_farthest_points_are_those_of_a_plain_search(start):
    clouds = _clouds()
    ids = farthest_points(clouds, 12, start)
    assert ids.dtype == jnp.int32
    starts = np.broadcast_to(start, 3)
    expected = [
        plain_farthest(cloud, 12, first) for cloud, first in zip(clouds, starts, strict=True)
    ]
    np.testing.assert_array_equal(ids, expected)


def test_farthest_points_are_nested():
    clouds = _clouds()
    ids = farthest_points(clouds, 40)
    np.testing.assert_array_equal(np.sort(ids), np.broadcast_to(np.arange(40), (3, 40)))
    np.testing.assert_array_equal(farthest_points(clouds, 7), ids[:, :7])
    in_order = farthest_points(gather_points(clouds, ids), 7)
    np.testing.assert_array_equal(in_order, np.broadcast_to(np.arange(7), (3, 7)))


def test_id_0_fills_where_distinct_points_are_too_few():
    clouds = _clouds()
    clouds[:, 5:] = clouds[:, :1]
    ids = np.asarray(farthest_points(clouds, 9))
    np.testing.assert_array_equal(np.sort(ids[:, :5]), np.broadcast_to(np.arange(5), (3, 5)))
    assert not ids[:, 5:].any()


@pytest.mark.parametrize("radius", [0.05, 0.8, 1.5, 10.0])
def test_ball_query_is_a_plain_search(radius):
    """From balls that are nearly all empty to balls that hold every point."""
    clouds, centres = _clouds(), _clouds(count=11, seed=1)
    ids = ball_query(radius, 6, clouds, centres)
    assert ids.dtype == jnp.int32
    expected = [plain_ball(radius, 6, *pair) for pair in zip(clouds, centres, strict=True)]
    np.testing.assert_array_equal(ids, expected)


def test_a_ball_holds_its_surface_and_may_give_all_points():
    cloud = np.array([[[3.0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]]], np.float32)
    ids = ball_query(1.0, 4, cloud, np.zeros((1, 1, 3), np.float32))
    np.testing.assert_array_equal(ids, [[[1, 2, 3, 1]]])


def test_balls_far_from_the_origin_hold_the_same_points():
    """On a grid that float32 holds exactly at either place; products would lose the digits."""
    clouds = np.round(_clouds() * 64) / 64
    here = ball_query(0.8, 6, clouds, clouds[:, :11])
    there = ball_query(0.8, 6, clouds + 1024, clouds[:, :11] + 1024)
    np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("width", [0, 5])
def test_group_is_indexing(width):
    clouds = _clouds()
    rng = np.random.default_rng(2)
    features = rng.normal(size=(3, 40, width)).astype(np.float32) if width else None
    ids = rng.integers(0, 40, (3, 7, 4))
    centres = clouds[:, :7]
    out = group(clouds, features, ids, centres)
    assert out.shape == (3, 7, 4, 3 + width)
    for cloud in range(3):
        for centre in range(7):
            places = ids[cloud, centre]
            np.testing.assert_array_equal(
                out[cloud, centre, :, :3], clouds[cloud, places] - clouds[cloud, centre]
            )
            if width:
                np.testing.assert_array_equal(out[cloud, centre, :, 3:], features[cloud, places])


def test_group_does_not_see_where_the_cloud_is():
    clouds = np.round(_clouds() * 64) / 64
    ids = np.random.default_rng(2).integers(0, 40, (3, 7, 4))
    moved = clouds + np.float32([1, -2, 4])
    np.testing.assert_array_equal(
        group(clouds, clouds, ids, clouds[:, :7]), group(moved, clouds, ids, moved[:, :7])
    )


def test_gather_points_takes_ids_of_any_rank():
    clouds = _clouds()
    ids = np.random.default_rng(3).integers(0, 40, (3, 2, 5, 4))
    expected = np.stack([cloud[places] for cloud, places in zip(clouds, ids, strict=True)])
    np.testing.assert_array_equal(gather_points(clouds, ids), expected)
    np.testing.assert_array_equal(gather_points(clouds, ids[:, 0, 0]), expected[:, 0, 0])


def test_ids_have_no_derivative_and_grouped_coordinates_do():
    clouds = _clouds()

    def total(clouds):
        centres = gather_points(clouds, farthest_points(clouds, 5))
        ids = ball_query(0.8, 6, clouds, centres)
        return jnp.sum(group(clouds, None, ids, centres) ** 2)

    gradient = jax.jit(jax.grad(total))(clouds)
    ids = np.asarray(farthest_points(clouds, 5))
    near = np.asarray(ball_query(0.8, 6, clouds, gather_points(clouds, ids)))
    expected = np.zeros(clouds.shape)
    for cloud in range(3):
        for centre, around in zip(ids[cloud], near[cloud], strict=True):
            twice = 2 * (clouds[cloud, around] - clouds[cloud, centre])
            np.add.at(expected[cloud], around, twice)
            expected[cloud, centre] -= twice.sum(axis=0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_vmap_over_stacks_of_clouds():
    stacks = np.stack([_clouds(seed=5), _clouds(seed=6)])

    def ids_of(clouds):
        ids = farthest_points(clouds, 5)
        return ids, ball_query(0.8, 6, clouds, gather_points(clouds, ids))

    together = jax.vmap(ids_of)(stacks)
    for number, clouds in enumerate(stacks):
        for stacked, alone in zip(together, ids_of(clouds), strict=True):
            np.testing.assert_array_equal(stacked[number], alone)


def test_more_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="count is 41 for clouds of 40 points; it must be from 1"):
        farthest_points(_clouds(), 41)
    with pytest.raises(ValueError, match="size is 0 for clouds of 40 points; it must be from 1"):
        ball_query(1.0, 0, _clouds(), _clouds(count=2))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_the_largest_and_where_its_gradient_goes(axis):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (4, 5, 6)), jnp.float32)
    np.testing.assert_array_equal(largest(x, axis), jnp.max(x, axis))
    factors = jnp.asarray(np.random.default_rng(1).random(largest(x, axis).shape), jnp.float32)
    gradient = jax.grad(lambda x: jnp.sum(factors * largest(x, axis)))(x)
    # Of several that are largest, the first has it all.
    hot = np.zeros(x.shape, bool)
    np.put_along_axis(hot, np.expand_dims(np.argmax(x, axis), axis), True, axis)
    np.testing.assert_array_equal(gradient != 0, hot)
    np.testing.assert_array_equal(gradient.sum(axis), factors)
    # Forward mode agrees with it.
    tangent = jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)
    slope = jax.jvp(lambda x: largest(x, axis), (x,), (tangent,))[1]
    np.testing.assert_array_equal(slope, np.where(hot, tangent, 0).sum(axis))
