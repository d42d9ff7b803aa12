"""Stock images as a data set of runs: seen as features of a trained network, computed once."""

import hashlib
import os
import pathlib

import numpy as np
from jaxtyping import Float16, UInt8
from ml_collections import ConfigDict
from rich.progress import track

from experiments.configs.kinds import ENCODED
from experiments.program.features import FeatureSource
from experiments.program.keeping import Arrays, computed_once
from otrw_jax.data.features import FeaturePart, FeatureSet
from otrw_jax.data.sources import ARRAYS, Dataset, data_root, load_dataset
from otrw_jax.models.image_encoder import ImageEncoder, efficientnet_lite0_encoder

BLOCK = 1024
"""Images that are encoded between two looks at how far it is."""


class EncodedImagesSource(FeatureSource):
    """A stock data set of images, its splits, and what networks are given of it: features."""

    def _read(self, config: ConfigDict) -> tuple[FeatureSet, str]:
        """The images' features, and a name that changes with the images, the network, the view.

        Raises:
            DatasetNotFound: as `load_dataset`.
            ModuleNotFoundError, FileNotFoundError, ValueError: as `efficientnet_lite0_encoder`.
        """
        data, encoder = config.data, config.encoder
        images = load_dataset(ENCODED[data.name], data.data_dir or None)
        encode = efficientnet_lite0_encoder(encoder.side, encoder.weights or None)
        name = _name(images, encode.fingerprint)

        def compute(in_order: bool) -> Arrays:
            del in_order
            parts = {"train": images.train_inputs, "test": images.test_inputs}
            return {part: encoded_images(encode, inputs) for part, inputs in parts.items()}

        kept = data_root(data.data_dir or None) / "encoded" / f"{name}.npz"
        features = computed_once(kept, compute)
        labels = {"train": images.train_labels, "test": images.test_labels}
        parts = {part: FeaturePart(features[part], labels[part]) for part in labels}
        notes = (f"the features are kept in {os.path.relpath(kept)}.",)
        return FeatureSet(parts, images.class_names, notes), name


def encoded_images(
    encode: ImageEncoder, images: UInt8[np.ndarray, "n h w c"]
) -> Float16[np.ndarray, "n d"]:
    """Features of images, as they are kept: with the eleven bits of float16."""
    starts = track(range(0, len(images), BLOCK), f"encoding {len(images)} images")
    return np.concatenate([encode(images[at : at + BLOCK]).astype(np.float16) for at in starts])


def image_encoder_name(config: ConfigDict) -> str:
    """The network, weights of one's own, and the side that images are brought to.

    Args:
        config: `encoder` of a run's config: weights, side; the network, where it has a choice.
    """
    own = f" ({pathlib.Path(config.weights).name})" if config.weights else ""
    if "network" in config:
        return f"{config.network}{own} at {config.side}²"
    return f"EfficientNet-Lite0{own} at {config.side}²"


def _name(images: Dataset, encoder: str) -> str:
    """A name that changes with the images, their order and labels, and the encoder."""
    digest = hashlib.sha256(encoder.encode())
    for name in ARRAYS:
        array = np.ascontiguousarray(getattr(images, name))
        digest.update(repr((name, array.shape, array.dtype.str)).encode())
        digest.update(array.data)
    return digest.hexdigest()[:32]
