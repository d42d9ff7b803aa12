"""From a config to a data set, its preprocessing and its splits."""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from experiments.configs.kinds import BY_COUNTS, CLOUDS, SENTENCES
from experiments.program.encoding import encoded
from otrw_jax.data.images import Preprocessing, preprocessing
from otrw_jax.data.points import point_preprocessing
from otrw_jax.data.sources import Dataset, data_root, load_dataset
from otrw_jax.data.splits import Split, groups_of_copies, make_split, make_split_of_counts
from otrw_jax.files import read_json

# Of a data set that was packed for some subsets alone: their fingerprints.
PACKED = "packed.json"


class Source:
    """A data set, its splits, and what networks are given of it.

    Attributes:
        dataset: as it is stored.
        preprocessing: from stored to network inputs.
    """

    def __init__(self, config: ConfigDict):
        data = config.data
        self._data = data
        self._encoder = config.encoder if data.name in SENTENCES else None
        manual_dir = data.manual_dir if data.name in BY_COUNTS else None
        self.dataset = load_dataset(data.name, data.data_dir or None, manual_dir or None)
        self.preprocessing = make_preprocessing(config)
        self._copies = None
        self._features: Dataset | None = None
        if self._encoder:
            self.dataset = _first(self.dataset, data.first)
            inputs = self.dataset.train_inputs, self.dataset.test_inputs
            self._copies = groups_of_copies(*inputs)

    def split(self, seed: int) -> Split:
        """The parts of the training set under a subset seed.

        Raises:
            ValueError: the data set was packed without this subset.
        """
        split = make_split_for(self._data, self.dataset.train_labels, self._copies, seed)
        packed = data_root(self._data.data_dir or None) / self._data.name / PACKED
        if packed.exists() and split.fingerprint not in read_json(packed):
            raise ValueError(
                f"the images of subset {split.fingerprint} (subset_seed={seed}) are not in "
                f"{packed.parent}, where those of others are packed; pack them, or prepare the "
                "whole data set elsewhere (data.data_dir)."
            )
        return split

    def seen(self, split: Split, seed: int) -> Dataset:
        """The data set as networks see it: sentences as features, and the test part that is drawn.

        Args:
            split: its extra examples are those the encoder is fine-tuned on.
            seed: of the fine-tuning, and of the test part.
        """
        if not self._encoder:
            return choose_test_examples(self._data, self.dataset, seed)
        cache = pathlib.Path(data_root(self._data.data_dir or None)) / "encoded"
        if self._encoder.fine_tuning.epochs:
            return encoded(self.dataset, self._encoder, cache, split.extra, seed)
        if self._features is None:
            self._features = encoded(self.dataset, self._encoder, cache, split.extra, seed)
        return self._features


def _first(dataset: Dataset, count: int) -> Dataset:
    """The first examples of both parts, all where the count is 0."""
    parts = ("train_inputs", "train_labels", "test_inputs", "test_labels")
    return dataset._replace(**{name: getattr(dataset, name)[: count or None] for name in parts})


def make_preprocessing(config: ConfigDict) -> Preprocessing:
    """From stored to network inputs; features are inputs as they are."""
    if config.data.name in SENTENCES:
        return Preprocessing(lambda keys, z: z, lambda z: z)
    if config.data.name in CLOUDS:
        return point_preprocessing(config.data.points, config.data.augment)
    return preprocessing(config.data.name, config.data.augment, config.data.padding)


def make_split_for(
    config: ConfigDict, labels: np.ndarray, copies: np.ndarray | None, seed: int
) -> Split:
    """The parts of a training set: by an imbalance factor, or by given counts."""
    if config.name in BY_COUNTS:
        return make_split_of_counts(
            labels,
            tuple(config.counts),
            seed=seed,
            meta_per_class=config.meta_per_class,
            held_out_per_class=config.held_out_per_class,
            extra_per_class=config.extra_per_class if config.name in SENTENCES else 0,
            groups=copies,
        )
    return make_split(
        labels,
        imbalance_factor=config.imbalance_factor,
        seed=seed,
        meta_per_class=config.meta_per_class,
        held_out_per_class=config.held_out_per_class,
        profile=config.profile,
    )


def choose_test_examples(config: ConfigDict, dataset: Dataset, seed: int) -> Dataset:
    """The data set with `test_per_class` test examples of each class where clouds are drawn.

    Raises:
        ValueError: a class has fewer.
    """
    if config.name not in CLOUDS or not config.test_per_class:
        return dataset
    count = config.test_per_class
    labels, names = dataset.test_labels, dataset.class_names
    sizes = np.bincount(labels, minlength=len(names))
    if count > sizes.min():
        raise ValueError(
            f"data.test_per_class is {count}, but {names[sizes.argmin()]} has {sizes.min()} test "
            f"examples; take {sizes.min()} or fewer, or 0 for the whole test part."
        )
    ids = make_split_of_counts(labels, (count,) * len(names), seed=seed, meta_per_class=0).train
    return dataset._replace(test_inputs=dataset.test_inputs[ids], test_labels=labels[ids])
