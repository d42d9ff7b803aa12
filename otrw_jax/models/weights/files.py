"""Tensors by name from a file of any kind that weights come in."""

import os
import pathlib

import numpy as np

from otrw_jax.extras import brought_by
from otrw_jax.models.weights.layouts import PREFIX
from otrw_jax.models.weights.pth import read_pth

SAFETENSORS = ".safetensors"


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Tensors of a file by name, without the prefix "module.".

    Args:
        path: of a file in the safetensors format, which ends in .safetensors, or of one that
            `torch.save` wrote (`read_pth`), of any other ending.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: the former, without safetensors.
        ValueError: it cannot be read.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; give the path of a file of weights.")
    if path.suffix != SAFETENSORS:
        return read_pth(path)
    tensors = read_safetensors(path)
    plain = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    if len(plain) < len(tensors):
        raise ValueError(f"{path} holds tensors of one name with and without {PREFIX!r}.")
    return plain


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Tensors of a file in the safetensors format, by the names that it has.

    Raises:
        ModuleNotFoundError: safetensors is not installed.
        ValueError: it cannot be read.
    """
    with brought_by("weights", __name__):
        import safetensors.numpy
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}.") from error
