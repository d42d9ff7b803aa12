"""Tiny image files of every kind, for tests."""

import os
import pathlib

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 12, 8


def pixels(seed=0, height=HEIGHT, width=WIDTH):
    """A smooth picture, which JPEG keeps nearly as it is."""
    low = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC))


def save(path, seed=0, mode="RGB", suffix=None, **options):
    """Writes a picture, and returns it in RGB as it was written."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels(seed)).convert(mode)
    image.save(path, suffix or "PNG", **options)
    return np.asarray(image.convert("RGB"))


def make_folder(root, classes=("cat", "dog"), count=3, parts=("train", "test")):
    """A folder of parts, classes, and different JPEGs."""
    seed = 0
    for part in parts:
        for name in classes:
            for number in range(count):
                seed += 1
                save(root / part / name / f"{number}.jpg", seed, suffix="JPEG", quality=95)
    return root


def cut_off(path):
    """Takes the end of a file away."""
    path.write_bytes(path.read_bytes()[:-40])


def undecodable_name(folder):
    """A path whose name is no UTF-8."""
    return pathlib.Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg"))
