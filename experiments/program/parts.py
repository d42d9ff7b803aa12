"""A data set in parts, as its files have them: how a run's subset is drawn, and its meta set."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from experiments.program.data import Source
from otrw_jax.data.sources import Dataset
from otrw_jax.data.splits import Split, draw_of_each, make_split, make_split_of_counts

POOLED = ("train", "meta", "validation")
"""The parts that a subset is drawn of, in the order in which their rows are numbered."""

Labels = Mapping[str, Int[np.ndarray, "n"]]
"""From the name of a part to the classes of its examples; `train` and `test` are among them."""


class PartedSource(Source):
    """A data set whose parts are what its files say, as a source of runs."""

    def __init__(self, data: ConfigDict, labels: Labels, content: str):
        """Decides where the meta set is from; `dataset` and `preprocessing` are the subclass's.

        Args:
            data: of the run's config.
            labels: of each part.
            content: a name that changes with the examples.

        Raises:
            ValueError: the meta set is to be taken from a part that is not there, or the held-out
                part from two.
        """
        self._data, self._labels, self._content = data, labels, content
        self._meta_from = _meta_from(data, labels)
        self._sizes = [len(labels[name]) if name in labels else 0 for name in POOLED]

    def split(self, seed: int) -> Split:
        """The parts of a run under a subset seed; their indices are rows of the parts together.

        Raises:
            ValueError: a class is too small for what is asked of it.
        """
        data, meta_from = self._data, self._meta_from
        n, m, _ = self._sizes
        split = _training_split(data, self._labels["train"], seed, meta_from == "train")
        meta, held_out = split.meta, split.held_out
        if meta_from == "within":
            train = self._labels["train"]
            meta = draw_of_each(
                train, data.meta_per_class, seed, self.dataset.num_classes, "training"
            )
        if meta_from == "meta":
            meta = n + np.arange(m)
        if "validation" in self._labels:
            labels = self._labels["validation"]
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

    def _about_meta(self) -> str:
        """Where the meta set is from, in a line."""
        data, meta_from = self._data, self._meta_from
        each = f"{data.meta_per_class} examples of each class of the {meta_from} part"
        meta = {
            "meta": "the meta set is the meta part",
            "validation": f"the meta set is {each}; the others are held out",
            "train": f"the meta set is {each}, which are not trained on",
            "within": f"the meta set is {data.meta_per_class} examples of each class of the train "
            "part, which are trained on all the same",
            None: "there is no meta set; measure=dynamic draws one of the training set",
        }[meta_from]
        return f"{data.name}: {meta}"


def first_of(parts: Mapping) -> str:
    """The part that a meta set is taken from where nothing else is said."""
    return next(part for part in ("meta", "validation", "train") if part in parts)


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


def _meta_from(data: ConfigDict, parts: Mapping) -> str | None:
    """The part that the meta set is taken from; None where there is none."""
    if "validation" in parts and data.held_out_per_class:
        raise ValueError(
            f"data.held_out_per_class is {data.held_out_per_class}, and the validation part is "
            "what checkpoints are chosen by; set data.held_out_per_class=0."
        )
    part = data.get("meta_from", "first")
    if part == "first":
        part = first_of(parts)
    if part not in parts and part != "within":
        raise ValueError(
            f"data.meta_from is {part!r}, and {data.folder} has no such part; take one of "
            f"{', '.join(p for p in POOLED if p in parts)}, or 'first'."
        )
    return part if part == "meta" or data.meta_per_class else None
