"""Which points of a cloud stand for it, and which lie around those."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


@functools.partial(jax.jit, static_argnames="count")
def farthest_points(
    points: Float[Array, "b n 3"], count: int, start: int | Int[Array, "b"] = 0
) -> Int[Array, "b count"]:
    """Ids of points chosen one after another, each the farthest from all chosen before it.

    Farthest means the largest distance to the nearest chosen point; the lowest id wins a tie.
    The choice is nested: the first m of `count` ids are those that a count of m gives, and points
    put in the order of their ids are chosen in that order again. Where the distinct points are
    fewer than `count`, id 0 fills the rest. Eldar et al., The Farthest Point Strategy for
    Progressive Image Sampling, IEEE Transactions on Image Processing 1997.

    Args:
        points: clouds; ids are places along n, and have no derivative.
        count: how many to choose.
        start: id of the first, one for all clouds or one a cloud, from 0 to n - 1.

    Raises:
        ValueError: there are not so many points.
    """
    batch, total, _ = points.shape
    _check_at_most("count", count, total)
    points = lax.stop_gradient(points)

    def choose(carry, _):
        distances, last = carry
        to_last = _squared(points - gather_points(points, last[:, None]))
        distances = jnp.minimum(distances, to_last)
        return (distances, jnp.argmax(distances, axis=1).astype(jnp.int32)), last

    first = jnp.broadcast_to(jnp.asarray(start, jnp.int32), (batch,))
    nothing_chosen = jnp.full((batch, total), jnp.inf, points.dtype)
    return lax.scan(choose, (nothing_chosen, first), length=count)[1].T


@functools.partial(jax.jit, static_argnames="size")
def ball_query(
    radius: float, size: int, points: Float[Array, "b n 3"], centres: Float[Array, "b c 3"]
) -> Int[Array, "b c size"]:
    """Ids of the first points, in the order of their ids, within a radius of each centre.

    Where fewer than `size` lie inside, the first of them fills the rest; where none does, the
    point nearest to the centre fills all. A maximum over the ids is therefore one over the points
    inside. Distances come from differences of coordinates, not from products, so that they do not
    lose digits with the distance of the cloud from the origin. Qi et al., PointNet++, NeurIPS
    2017, section 3.2.

    Args:
        radius: of the balls; their surface belongs to them.
        size: ids for each centre.
        points: clouds, of fewer than 2^24 points; ids are places along n, without derivative.
        centres: they need not be points of the clouds.

    Raises:
        ValueError: there are not so many points.
    """
    total = points.shape[1]
    _check_at_most("size", size, total)
    points, centres = lax.stop_gradient((points, centres))
    squared = _squared(centres[:, :, None] - points[:, None])
    # Ids as floats, exact below 2^24: on a CPU their top_k is several times as fast.
    ids = jnp.arange(total, dtype=jnp.float32)[None, None, :]
    inside = jnp.where(squared <= radius**2, ids, total)
    found = -lax.top_k(-inside, size)[0].astype(jnp.int32)
    nearest = jnp.argmin(squared, axis=-1, keepdims=True).astype(jnp.int32)
    filler = jnp.where(found[..., :1] < total, found[..., :1], nearest)
    return jnp.where(found < total, found, filler)


@jax.jit
def gather_points(values: Float[Array, "b n d"], ids: Int[Array, "b *s"]) -> Float[Array, "b *s d"]:
    """What each cloud has at its ids.

    Args:
        values: coordinates or features of the points.
        ids: places along n.
    """
    return jax.vmap(lambda values, ids: values[ids])(values, ids)


@jax.jit
def group(
    points: Float[Array, "b n 3"],
    features: Float[Array, "b n d"] | None,
    ids: Int[Array, "b c s"],
    centres: Float[Array, "b c 3"],
) -> Float[Array, "b c s d+3"]:
    """Coordinates around each centre, measured from it, and with them the points' features.

    A cloud and its centres moved together give the same.

    Args:
        points: clouds.
        features: of the points, which follow the coordinates; None where there are none.
        ids: of the points around each centre, such as `ball_query` gives.
        centres: the origins.
    """
    around = gather_points(points, ids) - centres[:, :, None]
    if features is None:
        return around
    return jnp.concatenate([around, gather_points(features, ids)], axis=-1)


def _squared(differences: Float[Array, "... 3"]) -> Float[Array, "..."]:
    return jnp.sum(differences**2, axis=-1)


def _check_at_most(name: str, value: int, total: int) -> None:
    if not 1 <= value <= total:
        raise ValueError(
            f"{name} is {value} for clouds of {total} points; it must be from 1 to {total}."
        )


def largest(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """The maximum along an axis, whose gradient goes to the first place that has it.

    That of `jnp.max` goes to all entries that equal the maximum. Where a compiler computes the
    entries anew for the backward pass and rounds them otherwise, none does, and the gradient is
    lost or not a number; a place stays what it is.

    Args:
        x: finite numbers.
        axis: which the result does not have.
    """
    place = jnp.argmax(x, axis, keepdims=True)
    here = lax.broadcasted_iota(place.dtype, x.shape, axis % x.ndim) == place
    return jnp.sum(jnp.where(here, x, 0.0), axis)
