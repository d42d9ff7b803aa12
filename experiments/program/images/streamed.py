"""Images that stay on the disk: a source whose files are read while they are trained on."""

import hashlib
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped, UInt8
from ml_collections import ConfigDict

from experiments.program.images.files import ImageFileSource, check_folder, find_images
from experiments.program.networks import beginning
from experiments.program.parts import POOLED
from experiments.program.prepared import Prepared
from otrw_jax.data.image_streams import ImageStream
from otrw_jax.data.photos import photo_preprocessing
from otrw_jax.data.sources import Dataset
from otrw_jax.methods.base import Examples, TrainingData
from otrw_jax.models.unprepared import Unprepared
from otrw_jax.training.devices import Devices, is_first_process
from otrw_jax.training.streaming import StreamedData

READ = 64
"""Images of a batch that is read for itself, without a step of training."""


class StreamedImages(ImageFileSource):
    """A folder, table or list of images, its splits, and what networks are given of it: crops."""

    def __init__(self, config: ConfigDict):
        """Finds the images, and says what was decided about them.

        Raises:
            FileNotFoundError, ValueError: as `beginning`, `find_images` and `PartedSource`.
        """
        data = config.data
        check_folder(data)
        begins_with = beginning(config.model)
        found = find_images(data)
        content = hashlib.sha256(f"{found.fingerprint} {begins_with}".encode()).hexdigest()[:32]
        super().__init__(data, found.labels, content)
        self.paths, self.view = found.paths, {"side": data.stored, "crop": "center"}
        self.dataset = Dataset(
            data.name,
            _listed([path for part in POOLED for path in self.paths.get(part, ())]),
            np.concatenate([found.labels[part] for part in POOLED if part in found.labels]),
            _listed(self.paths["test"]),
            found.labels["test"],
            found.class_names,
        )
        colours = {"mean": tuple(data.mean), "std": tuple(data.deviation)}
        self.preprocessing = photo_preprocessing(data.side, jitter=data.jitter, **colours)
        if is_first_process():
            lines = [f"{part} part {len(paths)} images" for part, paths in found.paths.items()]
            told = [f"{data.name}: {line}" for line in (*lines, *found.notes)]
            print("\n".join([*told, self._about_meta()]), flush=True)

    def prepare(self, devices: Devices, subset_seed: int) -> Prepared:
        """Draws a subset, and reads its meta set; all other images stay on the disk.

        Args:
            devices: those that share a batch.
            subset_seed: of the choice of examples.

        Raises:
            ValueError: as `PartedSource.split`.
            ImageError: an image of the meta set cannot be read.
        """
        split, dataset = self.split(subset_seed), self.dataset
        pooled = dataset.train_inputs, dataset.train_labels

        def on_disk(paths: Shaped[np.ndarray, "n"], labels: Int[np.ndarray, "n"]) -> Examples:
            return Examples(self.inputs(list(paths)), devices.replicate(jnp.asarray(labels)))

        def of(ids: Int[np.ndarray, "n"]) -> Examples:
            return on_disk(*(array[ids] for array in pooled))

        meta = None
        if split.meta.size:
            meta = of(split.meta)
            squares = devices.replicate(_read(meta.inputs))
            meta = meta._replace(inputs=Unprepared(squares, *self.preprocessing))
        train, test = of(split.train), on_disk(dataset.test_inputs, dataset.test_labels)
        view = TrainingData(Examples(None, train.labels), meta, dataset.num_classes)
        held_out = of(split.held_out) if split.held_out.size else None
        return Prepared(split, dataset, StreamedData(train.inputs, view, meta), test, held_out)

    def inputs(self, paths: Sequence[pathlib.Path]) -> ImageStream:
        """Files that stay on the disk."""
        return ImageStream(paths, self._data.stored, threads=self._data.threads)

    def traced(self, pixels: UInt8[Array, "b s s 3"]) -> UInt8[Array, "b s s 3"]:
        """Squares are stored as they are."""
        return pixels


def _read(stream: ImageStream) -> UInt8[Array, "n s s 3"]:
    """All squares of a few files."""
    with stream.batches(np.arange(len(stream)), READ) as read:
        return jnp.asarray(np.concatenate(list(read)))


def _listed(paths: Sequence[pathlib.Path]) -> Shaped[np.ndarray, "n"]:
    """Paths in an array, which strings would make one of sentences."""
    listed = np.empty(len(paths), object)
    listed[:] = paths
    return listed
