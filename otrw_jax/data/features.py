"""Features of any encoder, with labels, as a data set: read from files, and checked."""

import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int32

from otrw_jax.data.feature_files import PARTS, ReadArray, read_files
from otrw_jax.data.feature_labels import classes_of

ROWS = 16384
"""Rows that are looked through at a time."""


class FeaturePart(NamedTuple):
    """Examples of one part.

    Attributes:
        features: float16 or float32; memory-mapped where a .npy file has them so.
        labels: their classes, in 0..K-1.
    """

    features: Float[np.ndarray, "n d"]
    labels: Int32[np.ndarray, "n"]


class FeatureSet(NamedTuple):
    """A data set of features.

    Attributes:
        parts: `train` and `test`; `meta` and `validation` where they are given.
        class_names: one for each of the K classes.
        notes: what was decided about what the files leave open, a sentence each.
    """

    parts: dict[str, FeaturePart]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)


def load_features(place: str | os.PathLike, *, test: bool = True) -> FeatureSet:
    """Reads features `[n, d]` and labels `[n]` of a training, test, meta and validation part.

    A folder holds `train_features.npy` and `train_labels.npy`, and so for `test`, `meta` and
    `validation`; or `train.npz`, `train.safetensors` or `train.parquet` with `features` and
    `labels`; of each part one of them. Or one .npz or .safetensors file holds `train_features`, …,
    or one Parquet file has a column `split`. Class names are optional: `class_names.txt`, a line
    each, in a folder; an array `class_names` in .npz; lines of the metadata in .safetensors.

    Features are float16 or float32 and stay so; those of other numbers become float32, and where
    parts differ, all do. Labels are as in `classes_of`. An example's number is its row.

    Args:
        place: the folder or file.
        test: whether there must be a test part.

    Raises:
        FileNotFoundError: there is no such place.
        ModuleNotFoundError: a Parquet file, without pyarrow.
        ValueError: a file cannot be read, a part lacks features or labels or has no example,
            lengths or widths differ, numbers are not finite, or as in `classes_of`. The message
            names the file, what is wrong, and what to do.
    """
    place = pathlib.Path(place).expanduser()
    found = read_files(place)
    parts = _parts(place, found.arrays, ("train", "test") if test else ("train",))
    notes = list(found.notes)
    names, labels, decided = classes_of({p: y for p, (_, y) in parts.items()}, found.class_names)
    features = {part: _checked(x, notes) for part, (x, _) in parts.items()}
    _check_widths({part: x for part, (x, _) in parts.items()})
    if len({x.dtype for x in features.values()}) > 1:
        features = {part: x.astype(np.float32) for part, x in features.items()}
        notes.append(
            "features are float16 in some parts and float32 in others; all become float32."
        )
    return FeatureSet(
        {part: FeaturePart(x, labels[part]) for part, x in features.items()},
        names,
        (*notes, *decided),
    )


def fingerprint(features: FeatureSet) -> str:
    """16 hexadecimal digits that name what is in the files: a SHA-256 over all of it."""
    digest = hashlib.sha256("\0".join(features.class_names).encode())
    for name, part in features.parts.items():
        digest.update(f"{name} {part.features.shape} {part.features.dtype}".encode())
        digest.update(part.labels.astype("<i4").tobytes())
        for rows in _chunks(part.features):
            digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()[:16]


def root_mean_square_length(features: Float[np.ndarray, "n d"]) -> float:
    """Of vectors; 1 where all of them are zero."""
    total = sum(float(np.sum(np.square(rows, dtype=np.float64))) for rows in _chunks(features))
    return (total / len(features)) ** 0.5 or 1.0


def _chunks(values: Float[np.ndarray, "n d"]) -> Iterator[Float[np.ndarray, "r d"]]:
    return (values[at : at + ROWS] for at in range(0, len(values), ROWS))


def _parts(place, arrays, needed) -> dict[str, tuple[ReadArray, ReadArray]]:
    """Features and labels of each part, of one length that is not 0."""
    parts = {}
    for part in PARTS:
        both = [arrays.get(f"{part}_{kind}") for kind in ("features", "labels")]
        if both == [None, None]:
            if part in needed:
                plain = " (its arrays are named features and labels, of no part)"
                raise ValueError(
                    f"{place} has no {part} part{plain if 'features' in arrays else ''}; give "
                    f"{part}_features and {part}_labels."
                )
            continue
        if None in both:
            there, lacking = ("labels", "features") if both[0] is None else ("features", "labels")
            raise ValueError(f"{place} has {part}_{there} without {part}_{lacking}; give both.")
        x, y = both
        if not np.ndim(x.values) or not len(x.values):
            raise ValueError(
                f"{x.where} holds no example; give some"
                + ("." if part in needed else ", or leave the part out.")
            )
        if np.shape(y.values)[:1] != np.shape(x.values)[:1]:
            raise ValueError(
                f"{x.where} has {len(x.values)} rows and {y.where} "
                f"{len(y.values) if np.ndim(y.values) else 'a single'} labels; give one label for "
                "each row."
            )
        parts[part] = x, y
    return parts


def _checked(stored: ReadArray, notes: list[str]) -> Float[np.ndarray, "n d"]:
    values, where = stored
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(
            f"{where}: features have shape {values.shape}; give a vector for each example, [n, d]."
        )
    plain = values.dtype.kind in "iuf" and values.dtype.itemsize <= 8
    if not plain and not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"{where}: features are {values.dtype}; give float16 or float32.")
    native = values.dtype.newbyteorder("=")
    if native not in (np.float16, np.float32):
        notes.append(f"{where}: features are {native}, and become float32.")
        native = np.float32
    with np.errstate(over="ignore"):
        values = values.astype(native, copy=False)
    _check_finite(where, values)
    return values


def _check_finite(where: str, values: Float[np.ndarray, "n d"]) -> None:
    foreign = np.concatenate(
        [
            number * ROWS + np.flatnonzero(~np.isfinite(rows).all(axis=1))
            for number, rows in enumerate(_chunks(values))
        ]
    )
    if len(foreign):
        more = ", …" if len(foreign) > 10 else ""
        raise ValueError(
            f"{where}: {len(foreign)} of {len(values)} rows have numbers that are not finite, or "
            f"too large for float32 (rows {', '.join(map(str, foreign[:10]))}{more}); mend them, "
            "or leave them out of features and labels."
        )


def _check_widths(features: dict[str, ReadArray]) -> None:
    train = features["train"]
    for other in features.values():
        if other.values.shape[1] != train.values.shape[1]:
            raise ValueError(
                f"{other.where} has features of {other.values.shape[1]} numbers and {train.where} "
                f"of {train.values.shape[1]}; all parts must be of one encoder."
            )
