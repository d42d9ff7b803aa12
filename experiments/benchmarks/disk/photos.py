"""Made photographs, for what decodes JPEGs."""

import pathlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 375, 500
"""Of most of ImageNet's photographs."""


def write_photo(
    path: pathlib.Path,
    rng: np.random.Generator,
    coarse: tuple[int, int],
    noise: float = 0.0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> None:
    """Writes a JPEG of smooth colours.

    Args:
        path: of the file.
        rng: of the colours and the noise.
        coarse: height and width of the random image that is enlarged.
        noise: standard deviation of what is added to all colours of a pixel, of 255.
        size: height and width.
    """
    image = Image.fromarray(rng.integers(0, 256, (*coarse, 3), np.uint8))
    image = image.resize(size[::-1], Image.Resampling.BICUBIC)
    if noise:
        noisy = np.asarray(image, np.float32) + rng.normal(0, noise, (*size, 1))
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    image.save(path, "JPEG", quality=90)
