"""Clouds of points from the three forms in which ModelNet10 is to be had."""

import hashlib
import io
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from otrw_jax.data.builders.manual import Folder, SourceError
from otrw_jax.data.builders.meshes import parse_off, sample_surface

CLASSES = (
    "bathtub",
    "bed",
    "chair",
    "desk",
    "dresser",
    "monitor",
    "night_stand",
    "sofa",
    "table",
    "toilet",
)
POINTS = 1024


class Cloud(NamedTuple):
    """An object as points on its surface.

    Attributes:
        name: of the object, such as "bathtub_0001", the same in every form.
        label: its class, an index into `CLASSES`.
        points: [1024, 3], in the unit sphere.
    """

    name: str
    label: int
    points: Float32[np.ndarray, "1024 3"]


def reader(folder: Folder) -> Callable[[Any, str], Iterator[Cloud]] | None:
    """The function that reads a folder's clouds, or None where it holds none.

    Args:
        folder: one of these, which may lie in a zip archive, Parquet excepted:
            `CLASS/train/NAME.off` and `CLASS/test/NAME.off`, Princeton's meshes;
            `CLASS/NAME.txt` with a point "x,y,z,..." a line, and the lists `modelnet10_train.txt`
            and `modelnet10_test.txt`, or `modelnet40_...`, of which the ten classes are taken;
            `train.parquet` and `test.parquet`, columns `points` (3,072 numbers), `label`, `name`.

    Returns:
        (folder, "train" or "test") -> clouds; it raises SourceError, naming the file, where one
        is not what it should be.
    """
    if (folder / "train.parquet").is_file():
        return read_parquet
    if any((folder / list_name).is_file() for list_name in _lists("train")):
        return read_text
    if (folder / CLASSES[0] / "train").is_dir():
        return read_meshes
    return None


def read_meshes(folder: Folder, part: str) -> Iterator[Cloud]:
    """Clouds of 1,024 points drawn from meshes, uniformly by area, as in `reader`.

    The seed of a mesh is a hash of its name.
    """
    for label, class_name in enumerate(CLASSES):
        place = folder / class_name / part
        names = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
        names = [name for name in names if name.endswith(".off") and not name.startswith(".")]
        if not names:
            raise SourceError(f"{place} holds no .off file.")
        for name in names:
            stem = name.removesuffix(".off")
            try:
                mesh = parse_off((place / name).read_bytes().decode())
                points = sample_surface(mesh, POINTS, _rng_of(stem))
            except ValueError as error:
                raise SourceError(f"{place / name} is no usable mesh: {error}") from error
            yield _cloud(stem, label, points, place / name)


def read_text(folder: Folder, part: str) -> Iterator[Cloud]:
    """Clouds of the first 1,024 points of text files, as in `reader`."""
    lists = [folder / name for name in _lists(part) if (folder / name).is_file()]
    if not lists:
        raise SourceError(f"{folder} holds none of {', '.join(_lists(part))}.")
    for name in lists[0].read_bytes().decode().split():
        class_name = name.rpartition("_")[0]
        if class_name not in CLASSES:
            if lists[0].name == _lists(part)[0]:
                raise SourceError(f"{lists[0]}: {name!r} is of none of the ten classes.")
            continue
        file = folder / class_name / f"{name}.txt"
        if not file.is_file():
            raise SourceError(f"{file} is absent, though {lists[0]} lists it.")
        try:
            points = np.loadtxt(
                io.BytesIO(file.read_bytes()), delimiter=",", max_rows=POINTS, ndmin=2
            )
        except ValueError as error:
            raise SourceError(f"{file} is no table of numbers: {error}") from error
        if len(points) < POINTS or points.shape[1] < 3:
            raise SourceError(
                f"{file} holds {len(points)} points of {points.shape[1]} numbers; "
                f"{POINTS} of 3 or more are needed."
            )
        yield _cloud(name, CLASSES.index(class_name), points[:, :3], file)


def read_parquet(folder: pathlib.Path, part: str) -> Iterator[Cloud]:
    """Ready clouds of 1,024 points, as in `reader`; needs pyarrow."""
    file = folder / f"{part}.parquet"
    try:
        from pyarrow import lib, parquet
    except ImportError as error:
        raise SourceError(
            f"{file} is read by pyarrow, which is not installed: pip install 'otrw_jax[parquet]'."
        ) from error
    try:
        table = parquet.read_table(file, columns=["points", "label", "name"])
        points = table["points"].combine_chunks().flatten().to_numpy().astype(np.float64)
        points = points.reshape(len(table), POINTS, 3)
    except (OSError, KeyError, ValueError, lib.ArrowException) as error:
        raise SourceError(
            f"{file} has no columns points (of {3 * POINTS}), label and name: {error}"
        ) from error
    labels, names = table["label"].to_pylist(), table["name"].to_pylist()
    for name, label, cloud in zip(names, labels, points, strict=True):
        if not 0 <= label < len(CLASSES) or name.rpartition("_")[0] != CLASSES[label]:
            raise SourceError(f"{file}: {name!r} has the label {label}; 0 is {CLASSES[0]}.")
        yield _cloud(name, label, cloud, file)


def unit_sphere(points: Float[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """The points moved so that their mean is 0, and scaled so that the furthest lies at 1.

    Raises:
        ValueError: a point is not finite, or all are the same.
    """
    points = np.asarray(points, np.float64)
    if not np.isfinite(points).all():
        raise ValueError("a point is not finite.")
    centred = points - points.mean(0)
    radius = np.linalg.norm(centred, axis=1).max()
    if not radius > 0:
        raise ValueError("all points are the same.")
    return (centred / radius).astype(np.float32)


def _cloud(name: str, label: int, points: np.ndarray, file: Folder) -> Cloud:
    try:
        return Cloud(name, label, unit_sphere(points))
    except ValueError as error:
        raise SourceError(f"{file}, {name}: {error}") from error


def _lists(part: str) -> tuple[str, str]:
    return f"modelnet10_{part}.txt", f"modelnet40_{part}.txt"


def _rng_of(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
