"""A trained network as an encoder: images to features, a batch at a time."""

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8

from otrw_jax.checks import check_number
from otrw_jax.models.backbones.efficientnet import EfficientNetLite0, standardised
from otrw_jax.models.weights.efficientnet import load_efficientnet_lite0
from otrw_jax.models.weights.placing import Weights
from otrw_jax.models.weights.resnet import read_resnet
from otrw_jax.paths import named_leaves

BATCH = 32
"""Images that a device has at a time: what a row's features depend on beside its image."""
DEPTHS = {"resnet50": 50, "resnet101": 101, "resnet152": 152}
"""Name of a ResNet to its depth."""


class ImageEncoder:
    """From images to features of a backbone in evaluation mode.

    Attributes:
        network: the backbone, called as `network(x [b side side 3], train)`.
        side: height and width that images are brought to, whatever theirs: by the cubic filter of
            Keys, as Pillow's BICUBIC has it, wider where they shrink. Their aspect ratio is lost;
            crop them before, where it matters.
        fingerprint: of the network, its weights, the side and what pixels become: features kept
            under one name were computed alike.
        batch: images that all devices have at a time.
    """

    def __init__(
        self,
        network: nn.Module,
        weights: Weights,
        standardise: Callable[[Float[Array, "b h w c"]], Float[Array, "b h w c"]],
        side: int,
        *,
        devices: Sequence[jax.Device] = (),
    ):
        """Takes a network with trained weights.

        Args:
            network: the backbone.
            weights: of it; the head is not used.
            standardise: from pixels of 0 to 255 to what the weights expect.
            side: as above.
            devices: those over which images are spread, each with as many at a time; by default
                the first alone. What comes out does not depend on them.

        Raises:
            ValueError: the side is less than 1.
        """
        check_number("ImageEncoder", "side", side, least=1, whole=True)
        self.network, self.side = network, side
        self._variables = {"params": weights.backbone, **weights.state}
        function = partial(_features, network, standardise, side)
        self._apply, self._spread = jax.jit(function), None
        self.batch = BATCH * max(len(devices), 1)
        if len(devices) > 1:
            mesh = Mesh(np.array(devices), ("batch",))
            whole, rows = PartitionSpec(), PartitionSpec("batch")
            self._spread = jax.jit(
                jax.shard_map(function, mesh=mesh, in_specs=(whole, rows), out_specs=rows)
            )
            self._replicas = jax.device_put(self._variables, NamedSharding(mesh, whole))
        self.fingerprint = _fingerprint(repr(network), side, weights, standardise)

    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
        """Features of images of one size, in colour or grey.

        Raises:
            ValueError: these are no images of one or three channels, or not of 8 bits.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
            raise ValueError(
                f"ImageEncoder: images are {images.dtype} of shape {images.shape}; give uint8 "
                "[n, height, width, 1 or 3]."
            )
        apply, variables, size = self._apply, self._variables, BATCH
        if self._spread is not None:
            apply, variables, size = self._spread, self._replicas, self.batch
        parts = [
            np.asarray(apply(variables, _rows(images, at, size)))
            for at in range(0, max(len(images), 1), size)
        ]
        return np.concatenate(parts)[: len(images)]

    def traced(self, images: UInt8[Array, "b h w c"]) -> Float[Array, "b d"]:
        """Features of images within a function that is compiled; its weights become constants."""
        return self._apply(self._variables, images)


def efficientnet_lite0_encoder(side: int, path: str | None = None) -> ImageEncoder:
    """EfficientNet-Lite0 as an encoder, features of 1,280 numbers.

    Args:
        side: that images are brought to; the weights were trained at 224.
        path: of weights; by default those that the extra `efficientnet` installs.

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: as `load_efficientnet_lite0`.
    """
    return ImageEncoder(EfficientNetLite0(), load_efficientnet_lite0(path), standardised, side)


def resnet_encoder(
    name: str,
    path: str | os.PathLike,
    side: int,
    mean: Sequence[float],
    deviation: Sequence[float],
    devices: Sequence[jax.Device] = (),
) -> ImageEncoder:
    """A ResNet of torchvision's layout as an encoder, features of 2,048 numbers.

    Args:
        name: one of `DEPTHS`.
        path: of its weights, as `load_resnet` reads them; the last layer is not used.
        side: height and width of the images that it is given.
        mean: of colours from 0 to 1, as the weights expect them.
        deviation: likewise.
        devices: as of `ImageEncoder`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such name; the file cannot be read, or is of another network.
    """
    if name not in DEPTHS:
        raise ValueError(f"network is {name!r}; choose one of {', '.join(DEPTHS)}.")
    network, weights = read_resnet(path, DEPTHS[name])
    centre, scale = (255 * np.asarray(x, np.float32)[None, None, None] for x in (mean, deviation))
    return ImageEncoder(network, weights, lambda x: (x - centre) / scale, side, devices=devices)


def _features(network, standardise, side, variables, images):
    shape = (images.shape[0], side, side, images.shape[3])
    pixels = jnp.clip(jax.image.resize(images.astype(jnp.float32), shape, "cubic"), 0.0, 255.0)
    pixels = jnp.broadcast_to(pixels, (*shape[:3], 3))
    return network.apply(variables, standardise(pixels), train=False)


def _ramp() -> Float[Array, "1 256 2 3"]:
    """Every grey, and as many colours whose three numbers differ."""
    greys = np.broadcast_to(np.arange(256)[:, None], (256, 3))
    colours = (greys + np.array([0, 85, 170])[None, :]) % 256
    return jnp.asarray(np.stack([greys, colours], axis=1)[None], jnp.float32)


def _rows(images: np.ndarray, at: int, size: int) -> np.ndarray:
    """A batch from a place on; always as many, so that one program serves."""
    rows = images[at : at + size]
    return np.pad(rows, ((0, size - len(rows)), (0, 0), (0, 0), (0, 0)))


def _fingerprint(network: str, side: int, weights: Weights, standardise: Callable) -> str:
    digest = hashlib.sha256(repr((network, side)).encode())
    for name, leaf in named_leaves([weights.backbone, weights.state]).items():
        digest.update(repr((name, leaf.shape)).encode())
        digest.update(np.asarray(leaf).tobytes())
    # Features that are kept, and the subsets in records of runs on them, have names without it
    # where it is EfficientNet-Lite0's own; other functions are told apart by what they make of
    # each grey and of colours of their own.
    if standardise is not standardised:
        digest.update(np.asarray(standardise(_ramp()), np.float32).tobytes())
    return digest.hexdigest()[:16]
