"""Tensors as views of their storages, each checked against the bounds of its own."""

import math

import numpy as np

from otrw_jax.models.weights.records import Refused, Tensor

MOST_DIMENSIONS, MOST_ELEMENTS = 16, 2**48


def view(name: str, tensor: Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    """A tensor as a view that cannot be written.

    Args:
        name: of the tensor, for the message.
        tensor: where it lies.
        storages: their numbers `[count]`, by key.

    Raises:
        Refused: it does not lie within its storage, or elements of it share a place.
    """
    storage, offset, shape, strides = tensor
    if not (_is_shape((offset,)) and _is_shape(shape, strides) and _is_small(shape)):
        raise Refused(f"the tensor {name[:80]!r} has no proper offset, shape and strides.")
    array = storages[storage.key]
    if 0 in shape:
        return np.empty(0, array.dtype).reshape(shape)
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if last >= storage.count:
        raise Refused(
            f"the tensor {name[:80]!r} reaches to place {last} of a storage of {storage.count}."
        )
    if _overlaps(shape, strides):
        raise Refused(f"the tensor {name[:80]!r} has elements that share a place.")
    steps = [stride * array.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(array[offset:], shape, steps, writeable=False)


def _is_shape(*rows: tuple[int, ...]) -> bool:
    """Whether these are tuples of as many numbers each, all from 0 to what a file could have."""
    return (
        all(isinstance(row, tuple) and len(row) == len(rows[0]) <= MOST_DIMENSIONS for row in rows)
        and all(type(number) is int for row in rows for number in row)
        and all(0 <= number < MOST_ELEMENTS for row in rows for number in row)
    )


def _is_small(shape: tuple[int, ...]) -> bool:
    """Also where a side is 0: of the others an array could not be made either."""
    return math.prod(side or 1 for side in shape) < MOST_ELEMENTS


def _overlaps(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether a step along a dimension stays within what the finer ones span."""
    span = 0
    for stride, side in sorted(zip(strides, shape, strict=True)):
        if side > 1 and stride <= span:
            return True
        span += (side - 1) * stride
    return False
