"""Tensors of PyTorch's .pth files, zip and legacy, without PyTorch."""

import io
import os
import pathlib
import struct
import zipfile
from typing import Any

import numpy as np

from otrw_jax.models.weights.layouts import state_dict
from otrw_jax.models.weights.pickles import read_pickle
from otrw_jax.models.weights.records import Refused, Storage
from otrw_jax.models.weights.views import view

ZIP = b"PK\x03\x04"
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
"""What the first two pickles of a legacy file hold."""
DAMAGED = (zipfile.BadZipFile, struct.error, EOFError, OSError, RuntimeError, ValueError)
"""What zipfile raises of archives that are damaged or of another kind."""


def read_pth(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The state dict of a file that `torch.save` wrote, of PyTorch 1.6 and later or before.

    Nothing that the file names is imported or called, so files of unknown origin may be read. What
    it says is checked against what it is: a tensor lies within its storage and its elements do not
    overlap; storages are as long as they should be and together no longer than the file.

    Args:
        path: of the file; what it holds may have any of `layouts.state_dict`.

    Returns:
        Arrays by name, read-only, of the types in the file.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no such file, is damaged, or holds more than weights.
    """
    content = pathlib.Path(path).read_bytes()
    try:
        read = _read_zip if content.startswith(ZIP) else _read_legacy
        found, storages = read(content)
        tensors = state_dict(found)
        return {name: view(name, tensor, storages) for name, tensor in tensors.items()}
    except Refused as error:
        raise ValueError(f"{path} cannot be read as a .pth file: {error}") from error


def _read_zip(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _read_archive(archive, len(content))
    except Refused:
        raise
    except DAMAGED as error:
        raise Refused(f"its zip archive is damaged ({type(error).__name__}).") from error


def _read_archive(archive: zipfile.ZipFile, size: int) -> tuple[Any, dict[str, np.ndarray]]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) < len(archive.infolist()):
        raise Refused("its zip archive has a name twice.")
    for name, entry in entries.items():
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise Refused(f"{name[:80]!r} in it is compressed, which PyTorch never does.")
    if (total := sum(entry.file_size for entry in entries.values())) > size:
        raise Refused(f"its entries claim {total} bytes, and the file has {size}.")
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("data.pkl")]
    if len(roots) != 1:
        raise Refused(f"its zip archive has {len(roots)} files data.pkl; it must have one.")
    order = roots[0] + "byteorder"
    if order in entries and archive.read(order).strip() != b"little":
        raise Refused("its numbers are not little-endian; save it anew on a usual machine.")
    found, storages = read_pickle(io.BytesIO(archive.read(roots[0] + "data.pkl")))
    arrays = {}
    for key, storage in storages.items():
        name = f"{roots[0]}data/{key}"
        if name not in entries:
            raise Refused(f"its storage {key[:80]!r} is missing.")
        arrays[key] = _array(storage, archive.read(name))
    return found, arrays


def _read_legacy(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    stream = io.BytesIO(content)
    if content[:1] != b"\x80" or read_pickle(stream)[0] != MAGIC:
        raise Refused("it is neither a zip archive nor a legacy file of torch.save.")
    if read_pickle(stream)[0] != VERSION:
        raise Refused(f"its format is not {VERSION}, the one that PyTorch has.")
    system = read_pickle(stream)[0]
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("its numbers are not little-endian; save it anew on a usual machine.")
    found, storages = read_pickle(stream)
    keys = read_pickle(stream)[0]
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused("it has no list of its storages.")
    if sorted(keys) != sorted(storages):
        raise Refused("its list of storages is not that of its tensors.")
    return found, {key: _array(storages[key], _next(stream, storages[key])) for key in keys}


def _next(stream: io.BytesIO, storage: Storage) -> bytes:
    """The bytes of the storage that a legacy file has next, after their number of elements."""
    count = stream.read(8)
    if count != struct.pack("<q", storage.count):
        raise Refused(f"its storage {storage.key[:80]!r} is cut off or of another length.")
    return stream.read(storage.count * storage.dtype.itemsize)


def _array(storage: Storage, content: bytes) -> np.ndarray:
    wanted = storage.count * storage.dtype.itemsize
    if len(content) != wanted:
        raise Refused(
            f"its storage {storage.key[:80]!r} has {len(content)} bytes; it must have {wanted}."
        )
    return np.frombuffer(content, storage.dtype)
