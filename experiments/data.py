"""From a config to a data set, its preprocessing and its splits."""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from experiments.encoding import encoded
from otrw_jax.data.augment import Preprocessing, preprocessing
from otrw_jax.data.augment_points import point_preprocessing
from otrw_jax.data.sources import Dataset, data_root, load_dataset
from otrw_jax.data.splits import Split, groups_of_copies, make_split, make_split_of_counts


def load(config: ConfigDict) -> tuple[Dataset, np.ndarray | None]:
    """The data set, and for sentences, which are features then, the groups of their copies."""
    data = config.data
    dataset = load_dataset(data.name, data.data_dir or None, data.get("manual_dir") or None)
    if "encoder" not in config:
        return dataset, None
    copies = groups_of_copies(dataset.train_inputs, dataset.test_inputs)
    cache = pathlib.Path(data_root(data.data_dir or None)) / "encoded"
    return encoded(dataset, config.encoder, cache), copies


def make_preprocessing(config: ConfigDict) -> Preprocessing:
    """From stored to network inputs; features are inputs as they are."""
    if "encoder" in config:
        return Preprocessing(lambda keys, z: z, lambda z: z)
    if "points" in config.data:
        return point_preprocessing(config.data.points, config.data.augment)
    return preprocessing(config.data.name, config.data.augment, config.data.padding)


def make_split_for(
    config: ConfigDict, labels: np.ndarray, copies: np.ndarray | None, seed: int
) -> Split:
    """The parts of a training set: by an imbalance factor, or by given counts."""
    if "counts" in config:
        return make_split_of_counts(
            labels,
            tuple(config.counts),
            seed=seed,
            meta_per_class=config.meta_per_class,
            held_out_per_class=config.held_out_per_class,
            extra_per_class=config.get("extra_per_class", 0),
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


def choose_test_examples(config: ConfigDict, dataset: Dataset, seed: int) -> np.ndarray | slice:
    """The ids of the test examples: all, or `test_per_class` of each class, drawn by the seed.

    Raises:
        ValueError: a class has fewer.
    """
    count = config.get("test_per_class", 0)
    if not count:
        return slice(None)
    labels, names = dataset.test_labels, dataset.class_names
    sizes = np.bincount(labels, minlength=len(names))
    if count > sizes.min():
        raise ValueError(
            f"data.test_per_class is {count}, but {names[sizes.argmin()]} has {sizes.min()} test "
            f"examples; take {sizes.min()} or fewer, or 0 for the whole test part."
        )
    return make_split_of_counts(labels, (count,) * len(names), seed=seed, meta_per_class=0).train
