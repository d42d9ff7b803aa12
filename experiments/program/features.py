"""Features of any encoder as a data set of runs: its parts, its meta set, what networks see."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped
from ml_collections import ConfigDict

from experiments.program.parts import POOLED, PartedSource, first_of
from otrw_jax import example_weights
from otrw_jax.data.features import FeatureSet, fingerprint, load_features, root_mean_square_length
from otrw_jax.data.images import Preprocessing
from otrw_jax.data.sources import Dataset
from otrw_jax.data.splits import draw_of_each
from otrw_jax.training.devices import is_first_process


class Rows:
    """Arrays `[n, d]` of which the rows are numbered through; what is taken of them is copied."""

    def __init__(self, parts: Sequence[Float[np.ndarray, "n d"]]):
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])
        self.shape, self.dtype = (int(self._starts[-1]), parts[0].shape[1]), parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, ids: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b d"]:
        ids = np.asarray(ids)
        taken = np.empty((len(ids), self.shape[1]), self.dtype)
        for part, start in zip(self._parts, self._starts, strict=False):
            own = (ids >= start) & (ids < start + len(part))
            taken[own] = part[ids[own] - start]
        return taken


class FeatureSource(PartedSource):
    """A data set of features in files, its splits, and what networks are given of it."""

    def __init__(self, config: ConfigDict):
        """Reads the files and says what was decided about them.

        Raises:
            FileNotFoundError, ModuleNotFoundError: as `load_features`.
            ValueError: the same; no folder is named; or as `PartedSource`.
        """
        found, content = self._read(config)
        super().__init__(
            config.data, {name: part.labels for name, part in found.parts.items()}, content
        )
        pooled = [found.parts[name] for name in POOLED if name in found.parts]
        rows: Any = Rows([part.features for part in pooled])
        self.dataset = Dataset(
            config.data.name,
            rows,
            np.concatenate([part.labels for part in pooled]),
            found.parts["test"].features,
            found.parts["test"].labels,
            found.class_names,
        )
        scale = 1.0
        if config.data.scaling == "length":
            scale = 1 / root_mean_square_length(found.parts["train"].features)
        self.preprocessing = scaled(scale)
        if is_first_process():
            lines = _told(found, config.data, self._about_meta(), scale)
            print("\n".join(lines), flush=True)

    def _read(self, config: ConfigDict) -> tuple[FeatureSet, str]:
        """The features, and a name that changes with what they are."""
        if not config.data.folder:
            raise ValueError(
                "data.folder is empty; give --config.data.folder=DIR, a folder or file of features."
            )
        found = load_features(config.data.folder)
        return found, fingerprint(found)


def scaled(scale: float) -> Preprocessing:
    """Features as they are stored, float16 or float32, become float32, times a number."""

    def evaluate(z):
        return z.astype(jnp.float32) * scale

    return Preprocessing(lambda keys, z: evaluate(z), evaluate)


def _told(found: FeatureSet, data: ConfigDict, about_meta: str, scale: float) -> list[str]:
    lines = [
        f"{data.name}: {name} part {len(part.labels)} × {part.features.shape[1]}, "
        f"{part.features.dtype}"
        for name, part in found.parts.items()
    ]
    lines += [f"{data.name}: {note}" for note in found.notes]
    lines.append(about_meta)
    if scale != 1:
        lines.append(
            f"{data.name}: features are taken times {scale:.4g}, so that their mean squared length "
            "is one"
        )
    return lines


class FileWeights(NamedTuple):
    """Weights of training examples in files.

    Attributes:
        ids: rows of the training part that have a weight.
        names: of their classes.
        weights: of mean one.
        notes: what was decided, a sentence each.
    """

    ids: Int[np.ndarray, "n"]
    names: Shaped[np.ndarray, "n"]
    weights: Float[np.ndarray, "n"]
    notes: tuple[str, ...]


def weights_of_files(
    place: str | os.PathLike, meta_per_class: int, seed: int, **options: Any
) -> FileWeights:
    """`example_weights` of a folder or file of features, which needs no test part.

    Args:
        place: as `load_features` reads it.
        meta_per_class: examples of each class of the meta set, where there is no meta part.
        seed: of these, and of learned weights.
        **options: of `example_weights`.

    Raises:
        FileNotFoundError, ModuleNotFoundError: as `load_features`.
        ValueError: the same; a class has too few examples for the meta set; or as
            `example_weights`.
    """
    found = load_features(place, test=False)
    meta_from = first_of(found.parts)
    meta, train = found.parts[meta_from], found.parts["train"]
    rows, ids = np.arange(len(meta.labels)), np.arange(len(train.labels))
    if meta_from != "meta":
        rows = draw_of_each(meta.labels, meta_per_class, seed, found.num_classes, meta_from)
    if meta_from == "train":
        ids = np.setdiff1d(ids, rows)
        if len(np.unique(train.labels[ids])) < found.num_classes:
            raise ValueError(
                f"a class has {meta_per_class} training examples, which all would be of the meta "
                "set; lower meta_per_class, or give a meta part."
            )
    features = train.features if len(ids) == len(train.features) else train.features[ids]
    of_meta = meta.features[rows], meta.labels[rows]
    weights = example_weights(features, train.labels[ids], *of_meta, seed=seed, **options)
    names = np.array(found.class_names)[train.labels[ids]]
    notes = (*found.notes, f"the meta set is {len(rows)} examples of the {meta_from} part")
    return FileWeights(ids, names, np.asarray(weights), notes)
