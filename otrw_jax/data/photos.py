"""What happens to a photograph between its stored square and the network, inside jit."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from otrw_jax.checks import check_number, check_shape
from otrw_jax.data.images import Preprocessing, standardise

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey, of ITU-R 601-2, as Pillow and torchvision have it."""

Three = tuple[float, float, float]


@functools.cache
def photo_preprocessing(
    side: int,
    *,
    jitter: float = 0.4,
    mean: Three = IMAGENET_MEAN,
    std: Three = IMAGENET_STD,
) -> Preprocessing:
    """Crops of a stored square: at random, mirrored and of other colours in training.

    In training a crop of `side` is taken anywhere in the stored square, mirrored with probability
    1/2, and its brightness, contrast and saturation changed by `random_colours`; in evaluation it
    is taken from the middle. The same arguments give the same functions, so jit compiles once.

    Args:
        side: height and width that the network is given; stored squares are as large or larger,
            such as 256 for 224.
        jitter: strength of the change of colours, from 0 for none to 1.
        mean: of each channel, on a scale from 0 to 1; ImageNet's by default.
        std: likewise.

    Raises:
        ValueError: `side` is less than 1, or `jitter` outside [0, 1]; (by either function) images
            are not uint8 `[b h w 3]`, or smaller than `side`.
    """
    check_number("photo_preprocessing", "side", side, least=1, whole=True)
    check_number("photo_preprocessing", "jitter", jitter, least=0, most=1)

    def check(images):
        check_shape("photos", "images", images, (None, None, None, 3))
        if images.dtype != jnp.uint8:
            raise ValueError(
                f"photos: images are {images.dtype}; give uint8, as they are stored, not scaled or "
                "standardised."
            )
        if min(images.shape[1:3]) < side:
            raise ValueError(
                f"photos: stored images are {images.shape[1]}×{images.shape[2]}, and crops of "
                f"{side} are wanted; store larger squares, or take a smaller side."
            )

    def evaluate(images):
        check(images)
        top, left = ((length - side) // 2 for length in images.shape[1:3])
        return standardise(images[:, top : top + side, left : left + side], mean, std)

    def train(keys, images):
        check(images)
        check_shape("photos", "keys", keys, (images.shape[0],))
        of_crop, of_colours = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        crops = random_crops(of_crop, images, side).astype(jnp.float32)
        if jitter:
            crops = random_colours(of_colours, crops, jitter)
        return standardise(crops, mean, std)

    return Preprocessing(train, evaluate)


def random_crops(
    keys: Key[Array, "b"], images: UInt8[Array, "b h w c"], side: int
) -> UInt8[Array, "b s s c"]:
    """A crop of each image, anywhere in it alike, mirrored left to right with probability 1/2."""

    def one(key, image):
        of_top, of_left, of_flip = jax.random.split(key, 3)
        top = jax.random.randint(of_top, (), 0, image.shape[0] - side + 1)
        left = jax.random.randint(of_left, (), 0, image.shape[1] - side + 1)
        crop = jax.lax.dynamic_slice(image, (top, left, 0), (side, side, image.shape[2]))
        return jnp.where(jax.random.bernoulli(of_flip), crop[:, ::-1], crop)

    return jax.vmap(one)(keys, images)


def random_colours(
    keys: Key[Array, "b"], images: Float[Array, "b h w 3"], strength: float
) -> Float[Array, "b h w 3"]:
    """Brightness, contrast and saturation of each image, changed in a random order.

    Each is a blend of the image with black, its mean grey or its greys, by a factor from
    U(1 - strength, 1 + strength), cut to 0 to 255: torchvision's ColorJitter of these three,
    without its rounding in between.

    Args:
        keys: one an image.
        images: pixels of 0 to 255.
        strength: from 0 to 1.
    """

    def one(key, image):
        of_order, of_factors = jax.random.split(key)
        order = jax.random.permutation(of_order, 3)
        factors = jax.random.uniform(of_factors, (3,), minval=1 - strength, maxval=1 + strength)
        for kind, factor in zip(order, factors, strict=True):
            image = blended(image, kind, factor)
        return image

    return jax.vmap(one)(keys, images)


def blended(
    image: Float[Array, "h w 3"], kind: int | Array, factor: float | Array
) -> Float[Array, "h w 3"]:
    """An image of another brightness (kind 0), contrast (1) or saturation (2).

    Args:
        image: pixels of 0 to 255.
        kind: as above.
        factor: 1 leaves the image as it is, 0 gives black, its mean grey, or its greys.
    """
    # Channel by channel, and without a stack: half the time on a CPU.
    grey = sum(share * image[:, :, at : at + 1] for at, share in enumerate(GREY))
    towards = jnp.where(kind == 2, grey, jnp.where(kind == 1, jnp.mean(grey), 0.0))
    return jnp.clip(factor * image + (1 - factor) * towards, 0.0, 255.0)
