"""What a pickle of tensors may name and call, and what stands for it here."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_STORAGES = {f"torch {name}": np.dtype(dtype) for name, dtype in _DTYPES.items()}
_TENSORS = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")
_PARAMETER, _DICT = "torch._utils _rebuild_parameter", "collections OrderedDict"
# Of numbers kept beside the tensors, such as a best accuracy: allowed, and not read.
_UNREAD = (
    "numpy dtype",
    "numpy.core.multiarray scalar",
    "numpy._core.multiarray scalar",
    "_codecs encode",
    "torch Size",
    "torch device",
)
_ALLOWED = {*_STORAGES, *_TENSORS, _PARAMETER, _DICT, *_UNREAD}


class Refused(ValueError):
    """What a file says is not what weights need; the message is the rest of a sentence about it."""


class Storage(NamedTuple):
    """A row of numbers that tensors lie in.

    Attributes:
        key: its name in the file.
        dtype: of the numbers.
        count: how many.
    """

    key: str
    dtype: np.dtype
    count: int  # type: ignore[assignment]  # Tuples have a method of this name.


class Tensor(NamedTuple):
    """Where a tensor lies, unchecked: positions count numbers of the storage, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Name(NamedTuple):
    """A function or class that the pickle names."""

    name: str


class Unread:
    """What stands in place of a value that is of no use here."""


def allowed_name(name: str) -> Name:
    """A name that a pickle has, "module name", where it is one of those that weights need."""
    if name not in _ALLOWED:
        dotted = name.replace(" ", ".")[:80]
        raise Refused(
            f"its pickle names {dotted!r}, which weights do not need: save the state dict alone."
        )
    return Name(name)


def checked_key(key: Any) -> str | int:
    """The key of a dict: a text, or an id as those of an optimiser's state."""
    # Of larger numbers many may be chosen that make a dict slow.
    if type(key) is str or (type(key) is int and 0 <= key < 2**31):
        return key
    raise Refused(f"its pickle has a {type(key).__name__} as a name, which is no text or id.")


def of_type(value: Any, wanted: Any, what: str) -> Any:
    """The value, where it is of the type wanted; `what` says what the pickle does to it."""
    if not isinstance(value, wanted):
        raise Refused(f"its pickle {what} a {type(value).__name__}, which cannot be.")
    return value


def result_of(name: str, arguments: tuple) -> Any:
    """What stands for the result of a call of an allowed name."""
    if name in _UNREAD:
        return Unread()
    if name == _DICT:
        return _dict(*arguments)
    if name == _PARAMETER:
        return of_type(arguments[0], Tensor, "makes a parameter of")
    if name in _TENSORS:
        storage, offset, shape, strides = arguments[:4]
        return Tensor(of_type(storage, Storage, "makes a tensor of"), offset, shape, strides)
    raise Refused(f"its pickle calls {name.replace(' ', '.')}, which cannot be.")


def storage_of(reference: Any) -> Storage:
    """The storage that a pickle refers to, as `torch.save` describes it."""
    match reference:
        case ("storage", Name(name), str(key), str(), int(count), *rest) if (
            name in _STORAGES and 0 <= count < 2**48 and rest in ([], [None])
        ):
            return Storage(key, _STORAGES[name], count)
    raise Refused("its pickle refers to something that is no plain storage.")


def _dict(pairs: Any = None) -> dict:
    """An ordered dict; Python 2 gives its pairs in a list."""
    if pairs is None:
        return {}
    made = {checked_key(key): value for key, value in of_type(pairs, list, "makes a dict of")}
    pairs.clear()  # It serves once: of a long list a short pickle could make many dicts.
    return made
