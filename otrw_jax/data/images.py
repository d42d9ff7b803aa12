"""What happens to an image between the stored bytes and the network, inside jit."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt8

from otrw_jax.checks import check_shape

PaddingMode = Literal["reflect", "zero"]


class Preprocessing(NamedTuple):
    """How stored images become a network's inputs.

    Attributes:
        train: (keys [b], inputs uint8 [b h w c]) -> float32 [b h w c], with augmentation.
        evaluate: inputs uint8 [b h w c] -> float32 [b h w c], without.
    """

    train: Callable[[Key[Array, "b"], UInt8[Array, "b h w c"]], Float[Array, "b h w c"]]
    evaluate: Callable[[UInt8[Array, "b h w c"]], Float[Array, "b h w c"]]


class _Statistics(NamedTuple):
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmented: bool


# CIFAR: the constants of Meta-Weight-Net, MetaSAug and this method, for both datasets alike.
_CIFAR = _Statistics(
    scale=255.0,
    mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
    std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
    augmented=True,
)
# Digits: mean and standard deviation of the training pixels, rounded.
_DIGITS = _Statistics(scale=16.0, mean=(0.31,), std=(0.38,), augmented=False)
_STATISTICS = {"digits": _DIGITS, "cifar10": _CIFAR, "cifar100": _CIFAR}


@functools.cache
def preprocessing(
    name: str, augment: bool = True, padding: PaddingMode = "reflect"
) -> Preprocessing:
    """The preprocessing of a dataset: standardised pixels, and crops and flips in training.

    CIFAR images are padded by 4 pixels, cropped at random and flipped with probability 1/2.
    Reflecting padding belongs to the meta family of long-tailed CIFAR, zero padding (black,
    before standardisation) to the LDAM family. Digits are never augmented: a shifted or
    mirrored digit of 8×8 pixels is another picture.

    The same arguments give the same functions, so jit compiles once.

    Args:
        name: "digits", "cifar10" or "cifar100".
        augment: whether `train` crops and flips; if not, it does what `evaluate` does.
        padding: "reflect" or "zero".

    Raises:
        ValueError: the name or the padding is unknown; (by either function) the images are not
            `[b h w c]` with the dataset's channels, or not whole numbers as they are stored.
    """
    if name not in _STATISTICS:
        raise ValueError(
            f"no preprocessing for {name!r}; it must be one of {', '.join(_STATISTICS)}."
        )
    _check_mode(padding)
    scale, mean, std, augmented = _STATISTICS[name]

    def check(images):
        check_shape(name, "images", images, (None, None, None, len(mean)))
        if not jnp.issubdtype(images.dtype, jnp.integer):
            raise ValueError(
                f"{name}: images are {images.dtype}; give whole numbers from 0 to {scale:.0f}, as "
                "they are stored, not scaled to 0-1 or standardised."
            )

    def evaluate(inputs):
        check(inputs)
        return standardise(inputs, mean, std, scale=scale)

    def train(keys, inputs):
        check(inputs)
        if augment and augmented:
            inputs = random_crop_flip(keys, inputs, mode=padding)
        return evaluate(inputs)

    return Preprocessing(train, evaluate)


def standardise(
    images: Num[Array, "b h w c"],
    mean: float | tuple[float, ...],
    std: float | tuple[float, ...],
    *,
    scale: float = 255.0,
) -> Float[Array, "b h w c"]:
    """Each channel less its mean, over its standard deviation: (x / scale - mean) / std.

    Args:
        images: values from 0 to `scale`, usually uint8.
        mean: of x / scale, one number or one for each channel.
        std: likewise, and positive.
        scale: the largest value a pixel can have.

    Returns:
        float32.
    """
    spread = np.asarray(std, np.float64).reshape(1, 1, 1, -1)
    shift = np.asarray(mean, np.float64).reshape(1, 1, 1, -1) / spread
    factor = 1.0 / (scale * spread)
    return images.astype(jnp.float32) * factor.astype(np.float32) - shift.astype(np.float32)


def random_crop_flip(
    keys: Key[Array, "b"],
    images: Num[Array, "b h w c"],
    *,
    padding: int = 4,
    mode: PaddingMode = "reflect",
    flip: bool = True,
) -> Num[Array, "b h w c"]:
    """A random crop of each padded image, of the image's own size, and a random mirroring.

    Every image has an offset of its own, uniform over the (2·padding + 1)² crops, and is
    mirrored left to right with probability 1/2. The dtype is kept. One gather does it all,
    without a padded copy.

    Args:
        keys: one an image, which decides its crop and its mirroring; so an image comes out alike
            in whatever batch, and on whatever device, it is.
        images: uint8 or float.
        padding: pixels added on every side.
        mode: "reflect" mirrors at the border without repeating the edge, "zero" adds zeros.
        flip: whether to mirror.

    Raises:
        ValueError: the mode is unknown, `padding` is negative or too large to reflect, the images
            are not `[b h w c]`, or there is not a key for each.
    """
    _check_mode(mode)
    check_shape("random_crop_flip", "images", images, (None, None, None, None))
    batch, height, width, _ = images.shape
    check_shape("random_crop_flip", "keys", keys, (batch,))
    if padding < 0 or (mode == "reflect" and padding >= min(height, width)):
        raise ValueError(
            f"padding is {padding} for images of {height}×{width}; it must be 0 or more, "
            "and smaller than the image's sides to reflect."
        )
    offset_keys, flip_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    offsets = jax.vmap(lambda key: jax.random.randint(key, (2,), -padding, padding + 1))(
        offset_keys
    )
    rows = offsets[:, :1] + jnp.arange(height)[None, :]
    columns = offsets[:, 1:] + jnp.arange(width)[None, :]
    if flip:
        mirrored = jax.vmap(jax.random.bernoulli)(flip_keys)
        columns = jnp.where(mirrored[:, None], columns[:, ::-1], columns)
    crops = images[
        jnp.arange(batch)[:, None, None],
        _reflect(rows, height)[:, :, None],
        _reflect(columns, width)[:, None, :],
    ]
    if mode == "reflect":
        return crops
    inside = _inside(rows, height)[:, :, None, None] & _inside(columns, width)[:, None, :, None]
    return jnp.where(inside, crops, jnp.zeros((), images.dtype))


def _reflect(index: Int[Array, "b n"], size: int) -> Int[Array, "b n"]:
    return (size - 1) - jnp.abs((size - 1) - jnp.abs(index))


def _inside(index: Int[Array, "b n"], size: int) -> Bool[Array, "b n"]:
    return (index >= 0) & (index < size)


def _check_mode(mode: str) -> None:
    if mode not in ("reflect", "zero"):
        raise ValueError(f"padding mode is {mode!r}; it must be 'reflect' or 'zero'.")
