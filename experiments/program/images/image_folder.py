"""Image files as data sets of runs that see them as features of a trained network."""

import concurrent.futures
import hashlib
import os
import pathlib
from collections.abc import Callable, Generator, Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict
from rich.progress import track

from experiments.configs.kinds import LISTED
from experiments.program.features import FeatureSource
from experiments.program.images.files import ImageFileSource, check_folder, find_images
from experiments.program.keeping import kept_rows
from otrw_jax.data.builders.image_files import read_middle, read_square, without_warnings
from otrw_jax.data.builders.image_folder import THREADS
from otrw_jax.data.builders.manual import SourceError
from otrw_jax.data.features import FeaturePart, FeatureSet
from otrw_jax.data.sources import data_root
from otrw_jax.models.image_encoder import (
    ImageEncoder,
    efficientnet_lite0_encoder,
    resnet_encoder,
)
from otrw_jax.training.devices import pick_devices

VIEW = ("side", "crop", "resize")
"""Fields of `encoder` that say how a file becomes pixels."""
READ = 128
"""Images that are read, at the least, while as many others are encoded."""


class FileEncoder:
    """From image files to features.

    Attributes:
        network: from pixels to features.
        name: changes with the network, its weights, and the view that it is given.
    """

    def __init__(self, config: ConfigDict, devices: Sequence[jax.Device] = ()):
        """Reads the network's weights.

        Args:
            config: `encoder` of a run's config: weights, side and crop, of EfficientNet-Lite0; of a
                ResNet network, weights, resize, side, mean and deviation.
            devices: as of `ImageEncoder`.

        Raises:
            ModuleNotFoundError, FileNotFoundError, ValueError: as `efficientnet_lite0_encoder` or
                `resnet_encoder`; or no weights of a ResNet are named.
        """
        self._read: Callable[[pathlib.Path], UInt8[np.ndarray, "s s 3"]]
        if "network" in config:
            self.network, view = _resnet(config, devices), f"{config.resize}"
            self._read = partial(read_middle, resize=config.resize, side=config.side)
        else:
            self.network = efficientnet_lite0_encoder(config.side, config.weights or None)
            self._read = partial(read_square, side=config.side, crop=config.crop)
            view = config.crop
        self.name = f"{self.network.fingerprint} {view}"

    def __call__(self, paths: Sequence[pathlib.Path]) -> Float[np.ndarray, "n d"]:
        """Features of image files, as the config's view reads them.

        Raises:
            ImageError: one cannot be read.
        """
        return np.concatenate(list(self.blocks(paths)))

    def blocks(
        self, paths: Sequence[pathlib.Path], start: int = 0
    ) -> Generator[Float[np.ndarray, "b d"]]:
        """Features of the files from a place on, in blocks; further files are read meanwhile.

        Raises:
            ImageError: one cannot be read.
        """
        size = max(READ, self.network.batch)
        blocks = [paths[at : at + size] for at in range(start, len(paths), size)]
        threads = max(THREADS, os.cpu_count() or 1)
        with without_warnings(), concurrent.futures.ThreadPoolExecutor(threads) as pool:
            ahead = self._start(pool, blocks[0] if blocks else [])
            for after in track([*blocks[1:], []], f"encoding {len(paths) - start} images"):
                read, ahead = ahead, self._start(pool, after)
                if read:
                    yield self.network(np.stack([future.result() for future in read]))

    def _start(
        self, pool: concurrent.futures.Executor, paths: Sequence[pathlib.Path]
    ) -> list[concurrent.futures.Future[UInt8[np.ndarray, "s s 3"]]]:
        return [pool.submit(self._read, path) for path in paths]


def _resnet(config: ConfigDict, devices: Sequence[jax.Device]) -> ImageEncoder:
    if not config.weights:
        raise SourceError(
            f"encoder.weights is empty; give the path of a {config.network} in torchvision's "
            "layout, .pth or .safetensors, such as a published stage-1 file."
        )
    return resnet_encoder(
        config.network, config.weights, config.side, config.mean, config.deviation, devices
    )


class ImageFolderSource(FeatureSource, ImageFileSource):
    """A folder, table or list of images, its splits, and what networks are given of it: features.

    Attributes:
        encoder: from files to features.
    """

    def _read(self, config: ConfigDict) -> tuple[FeatureSet, str]:
        """The images' features, and a name that changes with the images, the network, the view.

        Raises:
            ValueError: as `find_images`.
        """
        check_folder(config.data)
        self.encoder = FileEncoder(config.encoder, pick_devices(config.devices).local)
        self.view = {name: config.encoder[name] for name in VIEW if name in config.encoder}
        folder = find_images(config.data)
        self.paths = folder.paths
        name = hashlib.sha256(f"{folder.fingerprint} {self.encoder.name}".encode()).hexdigest()[:32]
        kept = data_root(config.data.data_dir or None) / "encoded" / name
        features = kept_rows(
            kept,
            {part: len(paths) for part, paths in folder.paths.items()},
            lambda part, start: self.encoder.blocks(folder.paths[part], start),
            self.encoder.network.batch,
            "float16" if config.data.name in LISTED else "float32",
        )
        parts = {part: FeaturePart(features[part], folder.labels[part]) for part in folder.paths}
        notes = (*folder.notes, f"the features are kept in {os.path.relpath(kept)}.")
        return FeatureSet(parts, folder.class_names, notes), name

    def inputs(self, paths: Sequence[pathlib.Path]) -> Float[np.ndarray, "n d"]:
        """Features of files."""
        return self.encoder(paths)

    def traced(self, pixels: UInt8[Array, "b s s 3"]) -> Float[Array, "b d"]:
        """Features of pixels."""
        return self.encoder.network.traced(pixels)
