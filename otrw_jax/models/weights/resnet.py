"""Trained ResNets from files in the layout of torchvision and timm."""

import os
from collections.abc import Mapping

import numpy as np

from otrw_jax.models.backbones.resnet_imagenet import ResNetImageNet
from otrw_jax.models.weights.files import read_tensors
from otrw_jax.models.weights.placing import Weights, place

_STEM = {"conv": "conv1", "norm": "bn1"}
_SHORTCUT = {"shortcut": "downsample.0", "shortcut_norm": "downsample.1"}


def load_resnet(path: str | os.PathLike, network: ResNetImageNet, head: bool = False) -> Weights:
    """The weights of a ResNet-50, -101 or -152 of torchvision or timm, or of one trained by them.

    The networks are the same, to rounding: strides, padding and the ε of batch normalisation agree.
    Files of the first stage of Kang et al. (ICLR 2020) have the layout too. Images are expected as
    the file's network was trained: torchvision's with the mean (0.485, 0.456, 0.406) and deviation
    (0.229, 0.224, 0.225) of colours from 0 to 1.

    Args:
        path: of a .safetensors or a .pth file (`read_tensors`).
        network: the backbone that they are for.
        head: whether the last layer, `fc`, is read too.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or its tensors are not those of the network (`place`).
    """
    return place(path, read_tensors(path), network, _module, "fc", head)


def load_resnet_for(path: str | os.PathLike, network: ResNetImageNet, num_classes: int) -> Weights:
    """The weights that a ResNet of so many classes begins with, as `load_resnet` has them.

    The last layer, `fc`, is read where it has as many classes; a file without one, of others, or
    with the scales of Kang et al., by which logits are multiplied, gives the backbone alone.

    Args:
        path: as there.
        network: as there.
        num_classes: K.

    Raises:
        FileNotFoundError, ValueError: as `load_resnet`.
    """
    tensors = read_tensors(path)
    matrix = tensors.get("fc.weight")
    fits = matrix is not None and matrix.shape[:1] == (num_classes,) and "scales" not in tensors
    return place(path, tensors, network, _module, "fc", fits)


def read_resnet(
    path: str | os.PathLike, depth: int, head: bool = False
) -> tuple[ResNetImageNet, Weights]:
    """A ResNet as wide as that of a file, and its weights, as `load_resnet` has them.

    Args:
        path: as there.
        depth: 50, 101 or 152.
        head: as there.

    Raises:
        FileNotFoundError, ValueError: as `load_resnet`.
    """
    tensors = read_tensors(path)
    network = ResNetImageNet(depth, _width(tensors))
    return network, place(path, tensors, network, _module, "fc", head)


def _width(tensors: Mapping[str, np.ndarray]) -> int:
    """Channels of the first convolution; that of the published networks where there is none."""
    filters = tensors.get("conv1.weight")
    return ResNetImageNet.width if filters is None or not filters.ndim else len(filters)


def _module(path: tuple[str, ...]) -> str:
    if len(path) == 1:
        return _STEM[path[0]]
    stage, block = path[0].removeprefix("stage").split("_block")
    part = _SHORTCUT.get(path[1]) or path[1].replace("norm", "bn")
    return f"layer{stage}.{int(block) - 1}.{part}"
