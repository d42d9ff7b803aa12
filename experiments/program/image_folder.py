"""A folder or table of images as a data set of runs: seen as features of a trained network."""

import concurrent.futures
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict
from rich.progress import track

from experiments.program.features import FeatureSource
from experiments.program.keeping import Arrays, computed_once
from otrw_jax.data.builders.image_files import read_square, without_warnings
from otrw_jax.data.builders.image_folder import THREADS, load_image_folder
from otrw_jax.data.features import FeaturePart, FeatureSet
from otrw_jax.data.sources import data_root
from otrw_jax.models.image_encoder import efficientnet_lite0_encoder

READ = 128
"""Images that are read while as many others are encoded."""


class FileEncoder:
    """From image files to features.

    Attributes:
        network: from pixels to features.
        name: changes with the network, its weights, and the view that it is given.
    """

    def __init__(self, config: ConfigDict):
        """Reads the network's weights.

        Args:
            config: `encoder` of a run's config: weights, side, crop.

        Raises:
            ModuleNotFoundError, FileNotFoundError, ValueError: as `efficientnet_lite0_encoder`.
        """
        self.network = efficientnet_lite0_encoder(config.side, config.weights or None)
        self._side, self._crop = config.side, config.crop
        self.name = f"{self.network.fingerprint} {config.crop}"

    def __call__(self, paths: Sequence[pathlib.Path]) -> Float[np.ndarray, "n d"]:
        """Features of image files, as `read_square` reads them.

        Raises:
            ImageError: one cannot be read.
        """
        blocks = [paths[at : at + READ] for at in range(0, len(paths), READ)]
        features = []
        with without_warnings(), concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            ahead = self._start(pool, blocks[0])
            for after in track([*blocks[1:], []], f"encoding {len(paths)} images"):
                read, ahead = ahead, self._start(pool, after)
                features.append(self.network(np.stack([future.result() for future in read])))
        return np.concatenate(features)

    def _start(
        self, pool: concurrent.futures.Executor, paths: Sequence[pathlib.Path]
    ) -> list[concurrent.futures.Future[UInt8[np.ndarray, "s s 3"]]]:
        return [pool.submit(read_square, path, self._side, self._crop) for path in paths]


class ImageFolderSource(FeatureSource):
    """A folder or table of images, its splits, and what networks are given of it.

    Attributes:
        encoder: from image files to what a run has of them.
        paths: the files of each part, by name.
    """

    encoder: FileEncoder
    paths: dict[str, tuple[pathlib.Path, ...]]

    def _read(self, config: ConfigDict) -> tuple[FeatureSet, str]:
        """The images' features, and a name that changes with the images, the network, the view.

        Raises:
            ValueError: no folder is named; or as `load_image_folder`.
        """
        data, root = config.data, data_root(config.data.data_dir or None)
        if not data.folder:
            raise ValueError(
                "data.folder is empty; give --config.data.folder=DIR, a folder of class folders, "
                "or a table of images."
            )
        self.encoder = FileEncoder(config.encoder)
        folder = load_image_folder(
            data.folder,
            root,
            max_excluded=data.max_excluded,
            test_share=data.test_share,
            watch=shown,
        )
        self.paths = folder.paths
        name = hashlib.sha256(f"{folder.fingerprint} {self.encoder.name}".encode()).hexdigest()[:32]

        def compute(in_order: bool) -> Arrays:
            del in_order
            return {part: self.encoder(paths) for part, paths in folder.paths.items()}

        kept = root / "encoded" / f"{name}.npz"
        features = computed_once(kept, compute)
        parts = {part: FeaturePart(features[part], folder.labels[part]) for part in folder.paths}
        notes = (*folder.notes, f"the features are kept in {os.path.relpath(kept)}.")
        return FeatureSet(parts, folder.class_names, notes), name


def shown(items: Iterable, title: str, count: int) -> Iterable:
    """Shows how far an iterable is."""
    return track(items, title, total=count)
