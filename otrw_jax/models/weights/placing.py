"""Tensors of PyTorch's names and layout as the variables of a linen module."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, PyTree

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# The order of PyTorch's dimensions in ours: [out, in, h, w] of filters, [out, in] of matrices.
_ORDERS = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
_COUNTER = ".num_batches_tracked"
_SCALES = "scales"
_HEAD = "Dense_0"


class Weights(NamedTuple):
    """A trained network, as the parts of a `Model`'s variables.

    Attributes:
        backbone: its parameters: `variables["params"]["backbone"]`.
        state: its batch statistics: `variables["state"]`.
        head: parameters of a `LinearHead`, `variables["params"]["head"]`; None where not asked for.
    """

    backbone: PyTree
    state: PyTree
    head: PyTree | None


def place(
    path: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    backbone: nn.Module,
    module_of: Callable[[tuple[str, ...]], str],
    head_name: str,
    head: bool,
) -> Weights:
    """The tensors of a file where a backbone, and a linear head, have them, as float32.

    Filters `[out, in, h, w]` become `[h, w, in, out]` and the matrix of the head `[k, d]` becomes
    `[d, k]`; all else is as it is. So is the running variance, which gives the same features in
    evaluation mode. PyTorch moves it towards the unbiased variance of a batch in training, flax
    towards the biased one: the first is n / (n - 1) times the second, with n a batch's examples
    times positions.

    Args:
        path: of the file, for the message.
        tensors: by name; the counts of batches, `num_batches_tracked`, are left out.
        backbone: whose variables they are.
        module_of: from the names of a linen module and those in it to PyTorch's name of that part.
        head_name: PyTorch's name of the linear head.
        head: whether the head is wanted. If not it is left out, and so is `scales`, by which Kang
            et al. (ICLR 2020) multiply the logits.

    Raises:
        ValueError: a tensor is missing, of another shape, not finite, or of no part of the network;
            all are listed.
    """
    shapes, width = _shapes(backbone)
    names = {at: f"{module_of(at[1:-1])}.{_LEAVES[at[-1]]}" for at in shapes}
    if head:
        matrix = tensors.get(f"{head_name}.weight")
        classes = "k" if matrix is None or not matrix.ndim else len(matrix)
        for leaf, shape in (("kernel", (width, classes)), ("bias", (classes,))):
            at = ("head", _HEAD, leaf)
            shapes[at], names[at] = shape, f"{head_name}.{_LEAVES[leaf]}"
    wanted = {names[at]: _pytorch_shape(shape) for at, shape in shapes.items()}
    _check(path, wanted, tensors, unread=() if head else (f"{head_name}.", _SCALES))
    placed = unflatten_dict({at: _placed(tensors[name]) for at, name in names.items()})
    of_backbone, of_head = placed.pop("params"), placed.pop("head", None)
    return Weights(of_backbone, placed, of_head)


def _shapes(backbone: nn.Module) -> tuple[dict[tuple[str, ...], tuple], int]:
    """Shapes of a backbone's variables by their paths, and the width of its features."""
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    z, variables = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x, train=False), images
    )
    return {at: leaf.shape for at, leaf in flatten_dict(variables).items()}, z.shape[1]


def _pytorch_shape(shape: tuple) -> tuple:
    order = _ORDERS[len(shape)]
    return tuple(shape[order.index(i)] for i in range(len(shape)))


def _placed(tensor: np.ndarray) -> Float[jax.Array, "..."]:
    return jnp.asarray(tensor.transpose(_ORDERS[tensor.ndim]), jnp.float32)


def _check(
    path: str | os.PathLike,
    wanted: Mapping[str, tuple],
    tensors: Mapping[str, np.ndarray],
    unread: tuple[str, ...],
) -> None:
    wrong = [*_wrong(wanted, tensors, unread)]
    if wrong:
        raise ValueError(
            f"{path} does not hold the network that is asked for; {len(wrong)} tensors differ:\n  "
            + "\n  ".join(wrong)
        )


def _wrong(
    wanted: Mapping[str, tuple], tensors: Mapping[str, np.ndarray], unread: tuple[str, ...]
) -> Iterator[str]:
    """What is to be said of each tensor that does not fit."""
    for name, shape in wanted.items():
        expected = f"{name}: expected ({', '.join(map(str, shape))})"
        if name not in tensors:
            yield f"{expected}, found nothing"
        elif tensors[name].shape != shape:
            yield f"{expected}, found ({', '.join(map(str, tensors[name].shape))})"
        elif not _is_finite(tensors[name]):
            yield f"{name}: expected finite numbers, found others"
    for name, tensor in tensors.items():
        if name not in wanted and not name.endswith(_COUNTER) and not name.startswith(unread):
            yield f"{name}: expected nothing, found ({', '.join(map(str, tensor.shape))})"


def _is_finite(tensor: np.ndarray) -> bool:
    """Whether all numbers are, as float32."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(tensor.astype(np.float32)).all())
