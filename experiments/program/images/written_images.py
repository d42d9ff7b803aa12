"""A folder of JPEGs, written from images at hand, as a user would have one."""

import pathlib

import numpy as np
from PIL import Image

from otrw_jax.data.sources import data_root, load_dataset
from otrw_jax.files import replacing

TRAIN, TEST = 400, 100
"""Images of a class at the most."""
LARGEST = {"digits": 16, "cifar10": 255}
SIDE = 64
"""Height and width of the JPEGs of smaller images."""


def at_hand() -> str:
    """The data set to write images of: CIFAR-10 where it is prepared, else the digits."""
    return "cifar10" if (data_root(None) / "cifar10").is_dir() else "digits"


def write_images(name: str, folder: pathlib.Path) -> None:
    """Writes the first images of each class as `part/class/number.jpg`; those there are stay.

    Args:
        name: "digits" or "cifar10".
        folder: with `train` and `test`.

    Raises:
        FileNotFoundError, ValueError: as `load_dataset`.
        OSError: a file cannot be written.
    """
    dataset = load_dataset(name)
    for part, most in (("train", TRAIN), ("test", TEST)):
        inputs, labels = getattr(dataset, f"{part}_inputs"), getattr(dataset, f"{part}_labels")
        for c, title in enumerate(dataset.class_names):
            for number, image in enumerate(inputs[labels == c][:most]):
                path = folder / part / title / f"{number:03}.jpg"
                if not path.exists():
                    _save(path, image, LARGEST[name])


def _save(path: pathlib.Path, image: np.ndarray, largest: int) -> None:
    pixels = (image.astype(np.float32) * (255 / largest)).round().astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    with replacing(path) as draft:
        picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(draft, "JPEG", quality=95)
