"""What happens to a point cloud between the stored coordinates and the network, inside jit."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from otrw_jax.checks import check_number, check_shape
from otrw_jax.data.images import Preprocessing


@functools.cache
def point_preprocessing(
    count: int = 512, augment: bool = True, resample: bool = True
) -> Preprocessing:
    """The preprocessing of clouds `[b n 3]`: fewer points `[b count 3]`, float32.

    In training, points are chosen, dropped, scaled and shifted at random; in evaluation the first
    `count` are taken as they are. Clouds are stored centred and scaled; nothing is centred here.

    The same arguments give the same functions, so jit compiles once.

    Args:
        count: points that the network sees.
        augment: whether `train` does anything at random; if not, it does what `evaluate` does.
        resample: whether the points of training are chosen at random and put in random order. If
            not, they are the first `count`, as in github.com/yanx27/Pointnet_Pointnet2_pytorch,
            and the point with which farthest-point sampling starts is always the same.

    Raises:
        ValueError: by either function, where clouds are not `[b n 3]` or have fewer points than
            `count`.
    """

    def evaluate(clouds):
        check_shape("point_preprocessing", "clouds", clouds, (None, None, 3))
        _check_count(count, clouds.shape[1])
        return clouds[:, :count].astype(jnp.float32)

    def train(keys, clouds):
        check_shape("point_preprocessing", "clouds", clouds, (None, None, 3))
        if not augment:
            return evaluate(clouds)
        point_keys, drop_keys, move_keys = jnp.moveaxis(
            jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0
        )
        if resample:
            clouds = random_points(point_keys, clouds, count)
        clouds = random_drop(drop_keys, evaluate(clouds))
        return random_scale_shift(move_keys, clouds)

    return Preprocessing(train, evaluate)


def random_points(
    keys: Key[Array, "b"], clouds: Float[Array, "b n 3"], count: int
) -> Float[Array, "b count 3"]:
    """Some points of each cloud, drawn without replacement, in random order.

    Args:
        keys: one a cloud, which decides its points, whatever batch the cloud is in.
        clouds: of n points.
        count: points to draw.

    Raises:
        ValueError: clouds have fewer points.
    """
    batch, total, _ = clouds.shape
    check_shape("random_points", "keys", keys, (batch,))
    _check_count(count, total)
    ids = jax.vmap(lambda key: jax.random.permutation(key, total)[:count])(keys)
    return clouds[jnp.arange(batch)[:, None], ids]


def random_drop(
    keys: Key[Array, "b"], clouds: Float[Array, "b n 3"], most: float = 0.875
) -> Float[Array, "b n 3"]:
    """Clouds of which some points are put in the place of the first.

    Each cloud has a ratio of its own, uniform in [0, `most`], and each of its points is dropped
    with that probability; the number of points stays. Qi et al., PointNet++, NeurIPS 2017, section
    3.3 (random input dropout); that dropped points become the first, and 0.875, are the program's.

    Args:
        keys: one a cloud, which decides its ratio and points, whatever batch the cloud is in.
        clouds: of n points.
        most: the largest ratio.

    Raises:
        ValueError: `most` is not in [0, 1].
    """
    batch, total, _ = clouds.shape
    check_shape("random_drop", "keys", keys, (batch,))
    check_number("random_drop", "most", most, least=0, most=1)
    draws = jax.vmap(lambda key: jax.random.uniform(key, (total + 1,), jnp.float32))(keys)
    dropped = draws[:, 1:] < most * draws[:, :1]
    return jnp.where(dropped[:, :, None], clouds[:, :1], clouds)


def random_scale_shift(
    keys: Key[Array, "b"],
    clouds: Float[Array, "b n 3"],
    scale: tuple[float, float] = (0.8, 1.25),
    shift: float = 0.1,
) -> Float[Array, "b n 3"]:
    """Clouds of another size in another place.

    Args:
        keys: one a cloud, which decides its size and place, whatever batch the cloud is in.
        clouds: of n points.
        scale: lowest and highest factor, the same for the three coordinates, uniform between.
        shift: the largest shift along each axis, after the scaling; uniform in [-shift, shift].

    Raises:
        ValueError: `scale` is not a range of positive numbers, or `shift` is negative.
    """
    check_shape("random_scale_shift", "keys", keys, clouds.shape[:1])
    low, high = scale
    if not 0 < low <= high < float("inf"):
        raise ValueError(
            f"random_scale_shift: scale is {scale}; it must be two positive numbers, the lower one "
            "first."
        )
    check_number("random_scale_shift", "shift", shift, least=0)
    draws = jax.vmap(lambda key: jax.random.uniform(key, (4,), jnp.float32))(keys)
    factors = low + (high - low) * draws[:, :1]
    shifts = shift * (2 * draws[:, 1:] - 1)
    return clouds * factors[:, :, None] + shifts[:, None, :]


def _check_count(count: int, total: int) -> None:
    if not 1 <= count <= total:
        raise ValueError(f"count is {count} for clouds of {total} points; it must be 1 to {total}.")
