"""The data of one seed on the device: a subset of a data set, as it is stored and as it is seen."""

import hashlib
import json
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree, Shaped

from experiments.program.data import Source
from otrw_jax.data.sources import Dataset
from otrw_jax.data.splits import Split
from otrw_jax.methods.base import Examples, TrainingData
from otrw_jax.training.devices import Devices, first_alone
from otrw_jax.training.stages import DeviceData
from otrw_jax.training.streaming import StreamedData


class Prepared(NamedTuple):
    """The data of one seed.

    Attributes:
        split: its parts, as indices.
        dataset: the whole, as networks see it.
        data: what is trained on. Its view has the labels of the training set; `Program.data_of`
            adds the inputs for a stage whose method reads them.
        test: what is evaluated: as stored, on the device or the disk; `Preprocessing.evaluate`
            makes inputs of it.
        held_out: what checkpoints are chosen by, or None.
        kept: whether the last three hold features of a frozen backbone in place of inputs.
    """

    split: Split
    dataset: Dataset
    data: DeviceData | StreamedData
    test: Examples
    held_out: Examples | None
    kept: bool = False

    @property
    def train(self) -> Examples:
        """The training examples as they are stored, on the device or the disk."""
        if isinstance(self.data, StreamedData):
            return Examples(self.data.inputs, self.data.view.train.labels)
        return self.data.raw

    def stored(self, ids: Int[np.ndarray, "n"]) -> Shaped[Array, "n ..."]:
        """Stored inputs of a few training examples, by their places."""
        if not isinstance(self.data, StreamedData):
            return self.data.raw.inputs[ids]
        with self.data.inputs.batches(ids, len(ids)) as read:
            return jnp.asarray(next(read))


def prepare(source: Source, devices: Devices, subset_seed: int) -> Prepared:
    """Draws a subset and puts the data on the devices.

    Args:
        source: of the data set and its splits.
        devices: those that share a batch.
        subset_seed: of the choice of examples.

    Raises:
        ValueError: as `Source.split` and `Source.seen`.
    """
    split = source.split(subset_seed)
    dataset = first_alone(lambda: source.seen(split, subset_seed))

    def stored(ids: Int[np.ndarray, "n"]) -> Examples:
        return Examples(
            jnp.asarray(dataset.train_inputs[ids]), jnp.asarray(dataset.train_labels[ids])
        )

    train = stored(split.train)
    raw_meta, held_out = (stored(ids) if ids.size else None for ids in (split.meta, split.held_out))
    meta = raw_meta and raw_meta._replace(inputs=source.preprocessing.evaluate(raw_meta.inputs))
    view = TrainingData(Examples(None, train.labels), meta, dataset.num_classes)
    test = Examples(jnp.asarray(dataset.test_inputs), jnp.asarray(dataset.test_labels))
    arrays = devices.replicate((DeviceData(train, view, raw_meta), test, held_out))
    return Prepared(split, dataset, *arrays)


class Recent:
    """Arrays that were computed last, by all that they depend on."""

    def __init__(self, most_bytes: int):
        """Keeps nothing yet.

        Args:
            most_bytes: of all that is kept, but for the last; what was computed first goes first.
        """
        self._most, self._kept = most_bytes, dict[str, PyTree]()

    def get(self, choices: list, arrays: PyTree, compute: Callable[[], PyTree]) -> PyTree:
        """What is kept of the same choices and arrays, else what `compute` gives.

        Args:
            choices: JSON data.
            arrays: each counts by its content and place, with what the tree has beside arrays.
            compute: gives what is kept from now on.
        """
        if jax.process_count() > 1:  # No process has all of an array.
            return compute()
        digest = hashlib.sha256(json.dumps(choices, sort_keys=True).encode())
        leaves, structure = jax.tree.flatten(arrays)
        digest.update(str(structure).encode())
        for leaf in map(np.asarray, leaves):
            digest.update(f"{leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
        name = digest.hexdigest()
        if name not in self._kept:
            self._kept[name] = compute()
            while len(self._kept) > 1 and _size(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
        return self._kept[name]


def _size(arrays: PyTree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))


RECENT = Recent(most_bytes=2**30)
"""Of this process."""
