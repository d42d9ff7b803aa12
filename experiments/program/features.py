"""Features of any encoder as a data set of runs: its parts, its meta set, what networks see."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped
from ml_collections import ConfigDict

from experiments.program.data import Source
from otrw_jax import example_weights
from otrw_jax.data.features import FeatureSet, fingerprint, load_features, root_mean_square_length
from otrw_jax.data.images import Preprocessing
from otrw_jax.data.sources import Dataset
from otrw_jax.data.splits import Split, draw_of_each, make_split, make_split_of_counts
from otrw_jax.training.devices import is_first_process

POOLED = ("train", "meta", "validation")
"""The parts that a subset is drawn of, in the order in which their rows are numbered."""


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


class FeatureSource(Source):
    """A data set of features in files, its splits, and what networks are given of it."""

    def __init__(self, config: ConfigDict):
        """Reads the files and says what was decided about them.

        Raises:
            FileNotFoundError, ModuleNotFoundError: as `load_features`.
            ValueError: the same; no folder is named; or the meta set is to be taken from a part
                that is not there, or of the wrong one.
        """
        self._data = config.data
        found, self._content = self._read(config)
        self._parts = found.parts
        self._meta_from = _meta_from(config.data, found)
        pooled = [found.parts[name] for name in POOLED if name in found.parts]
        self._sizes = [len(found.parts[n].labels) if n in found.parts else 0 for n in POOLED]
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
            print("\n".join(_told(found, self._meta_from, config.data, scale)), flush=True)

    def _read(self, config: ConfigDict) -> tuple[FeatureSet, str]:
        """The features, and a name that changes with what they are."""
        if not config.data.folder:
            raise ValueError(
                "data.folder is empty; give --config.data.folder=DIR, a folder or file of features."
            )
        found = load_features(config.data.folder)
        return found, fingerprint(found)

    def split(self, seed: int) -> Split:
        """The parts of a run under a subset seed; their indices are rows of the parts together.

        Raises:
            ValueError: a class is too small for what is asked of it.
        """
        data, meta_from = self._data, self._meta_from
        n, m, _ = self._sizes
        split = _training_split(data, self._parts["train"].labels, seed, meta_from == "train")
        meta, held_out = split.meta, split.held_out
        if meta_from == "within":
            train = self._parts["train"].labels
            meta = draw_of_each(
                train, data.meta_per_class, seed, self.dataset.num_classes, "training"
            )
        if meta_from == "meta":
            meta = n + np.arange(m)
        if "validation" in self._parts:
            labels = self._parts["validation"].labels
            chosen = np.zeros(0, np.int64)
            if meta_from == "validation":
                chosen = draw_of_each(
                    labels, data.meta_per_class, seed, self.dataset.num_classes, "validation"
                )
                meta = n + m + chosen
            held_out = n + m + np.setdiff1d(np.arange(len(labels)), chosen)
        return split._replace(meta=meta, held_out=held_out, content=self._content)

    def seen(self, split: Split, seed: int) -> Dataset:
        """The data set as networks see it: as it is."""
        return self.dataset


def scaled(scale: float) -> Preprocessing:
    """Features as they are stored, float16 or float32, become float32, times a number."""

    def evaluate(z):
        return z.astype(jnp.float32) * scale

    return Preprocessing(lambda keys, z: evaluate(z), evaluate)


def _training_split(data: ConfigDict, labels: np.ndarray, seed: int, with_meta: bool) -> Split:
    """The training part long-tailed, or as it is, less what is split off."""
    meta = data.meta_per_class if with_meta else 0
    if data.imbalance_factor:
        return make_split(
            labels,
            imbalance_factor=data.imbalance_factor,
            seed=seed,
            meta_per_class=meta,
            held_out_per_class=data.held_out_per_class,
            profile=data.profile,
        )
    sizes = np.bincount(labels)
    counts = sizes - meta - data.held_out_per_class
    if counts.min() < 1:
        raise ValueError(
            f"class {counts.argmin()} has {sizes[counts.argmin()]} training examples, too few for "
            f"{meta} meta and {data.held_out_per_class} held-out ones beside 1 to train on; lower "
            "data.meta_per_class or data.held_out_per_class."
        )
    return make_split_of_counts(
        labels,
        counts,
        seed=seed,
        meta_per_class=meta,
        held_out_per_class=data.held_out_per_class,
    )


def _meta_from(data: ConfigDict, found: FeatureSet) -> str | None:
    """The part that the meta set is taken from; None where there is none."""
    if "validation" in found.parts and data.held_out_per_class:
        raise ValueError(
            f"data.held_out_per_class is {data.held_out_per_class}, and the validation part is "
            "what checkpoints are chosen by; set data.held_out_per_class=0."
        )
    part = data.get("meta_from", "first")
    if part == "first":
        part = _first_of(found)
    if part not in found.parts and part != "within":
        raise ValueError(
            f"data.meta_from is {part!r}, and {data.folder} has no such part; take one of "
            f"{', '.join(p for p in POOLED if p in found.parts)}, or 'first'."
        )
    return part if part == "meta" or data.meta_per_class else None


def _first_of(found: FeatureSet) -> str:
    return next(part for part in ("meta", "validation", "train") if part in found.parts)


def _told(found: FeatureSet, meta_from: str | None, data: ConfigDict, scale: float) -> list[str]:
    lines = [
        f"{data.name}: {name} part {len(part.labels)} × {part.features.shape[1]}, "
        f"{part.features.dtype}"
        for name, part in found.parts.items()
    ]
    lines += [f"{data.name}: {note}" for note in found.notes]
    each = f"{data.meta_per_class} examples of each class of the {meta_from} part"
    meta = {
        "meta": "the meta set is the meta part",
        "validation": f"the meta set is {each}; the others are held out",
        "train": f"the meta set is {each}, which are not trained on",
        "within": f"the meta set is {data.meta_per_class} examples of each class of the train "
        "part, which are trained on all the same",
        None: "there is no meta set; measure=dynamic draws one of the training set",
    }[meta_from]
    lines.append(f"{data.name}: {meta}")
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
    meta_from = _first_of(found)
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
