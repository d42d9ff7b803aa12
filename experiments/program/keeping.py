"""Arrays that take long to compute, computed once and kept on the disk.

Of rows of features a part is PART.npy in a folder. While it is computed its rows lie in
PART.npy.begun, which is the same file cut off; a further call goes on from the rows that are there.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import BinaryIO

import filelock
import numpy as np
from jaxtyping import Float
from numpy.lib import format as npy

from otrw_jax.data.sources import save_arrays
from otrw_jax.files import writing

Arrays = dict[str, np.ndarray]
Blocks = Callable[[str, int], Generator[Float[np.ndarray, "b d"]]]
"""From a part and the number of its first row that is wanted to the rows from there, in blocks."""


def computed_once(path: pathlib.Path, compute: Callable[[bool], Arrays]) -> Arrays:
    """Arrays by name, of a file, or computed and kept there.

    Of several processes that want the same ones, one computes them, and the others wait. Where
    nothing can be written they are computed by each, and this is said.

    Args:
        path: of the file, an .npz, named by all that decides what is in it.
        compute: gives the arrays; told whether others wait in turn, so that it may write beside.

    Raises:
        Whatever `compute` does.
    """
    if path.exists():
        return _kept(path)
    with _turn(path) as in_order:
        if path.exists():
            return _kept(path)
        arrays = compute(in_order)
        _keep(path, arrays)
    return arrays


@contextlib.contextmanager
def _turn(path: pathlib.Path) -> Iterator[bool]:
    """Waits while another process computes what a path is to hold.

    Gives whether others wait in turn; where nothing can be written, none does.
    """
    lock = filelock.FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"another process computes {path}; this one waits for it.", flush=True)
        lock.acquire()
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _kept(path: pathlib.Path) -> Arrays:
    with np.load(path) as kept:
        return dict(kept)


def _keep(path: pathlib.Path, arrays: Arrays) -> None:
    """Saves arrays; where that fails, what they took to compute is not lost to this run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(path, arrays)
    except OSError as error:
        print(f"features are not kept, and a further run computes them anew: {error}", flush=True)


def kept_rows(
    folder: pathlib.Path, sizes: Mapping[str, int], blocks: Blocks, batch: int, dtype: str
) -> dict[str, Float[np.ndarray, "n d"]]:
    """Rows of each part: of the files of a folder, memory-mapped, or computed and kept there.

    Of several processes that want the same ones, one computes them, and the others wait. One that
    is killed loses the rows of a block or two. Where nothing can be written, they are computed by
    each, and this is said.

    Args:
        folder: named by all that decides what is in it.
        sizes: number of rows of each part.
        blocks: computes them; asked for rows from a multiple of `batch` on alone, so that what it
            gives may depend on a row's place in its batch.
        batch: as above.
        dtype: that the rows are kept in.

    Raises:
        ValueError: a row is not finite in that type; the rows before stay.
        OSError: a file cannot be written; the rows that are done stay.
        Whatever `blocks` does.
    """
    paths = {part: folder / f"{part}.npy" for part in sizes}
    if not all(path.exists() for path in paths.values()):
        with _turn(folder) as in_order:
            if not in_order:
                print(
                    f"{folder} cannot be written: features are not kept, and a further run "
                    "computes them anew.",
                    flush=True,
                )
                return {
                    part: np.concatenate([_stored(rows, dtype) for rows in blocks(part, 0)])
                    for part in sizes
                }
            for part, path in paths.items():
                if not path.exists():
                    _write_rows(path, sizes[part], partial(blocks, part), batch, dtype)
    return {part: np.load(path, mmap_mode="r") for part, path in paths.items()}


def _write_rows(
    path: pathlib.Path,
    size: int,
    blocks: Callable[[int], Generator[np.ndarray]],
    batch: int,
    dtype: str,
) -> None:
    """Writes the rows that a file does not have yet, and gives it its name at the end."""
    draft = path.with_name(f"{path.name}.begun")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "r+b" if draft.exists() else "w+b") as file:
            begun = _rows_of(file, size, batch, dtype)
            if begun:
                print(f"{path.name}: {begun:,} of {size:,} rows are there already.", flush=True)
            with contextlib.closing(blocks(begun)) as left:
                _append(file, left, size, begun, dtype)
        draft.replace(path)


def _append(
    file: BinaryIO, blocks: Iterator[np.ndarray], size: int, begun: int, dtype: str
) -> None:
    for rows in blocks:
        if file.tell() == 0:
            header = {"descr": np.dtype(dtype).str, "fortran_order": False}
            npy.write_array_header_1_0(file, header | {"shape": (size, rows.shape[1])})
        file.write(_stored(rows, dtype).tobytes())
        file.flush()
        os.fsync(file.fileno())
        begun += len(rows)
    if begun != size:
        raise ValueError(f"{begun} rows were computed, and {size} are wanted.")


def _stored(rows: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(rows, dtype)
    if not np.isfinite(stored).all():
        raise ValueError(
            f"features are not finite as {dtype}; take other weights of the network "
            "(encoder.weights)."
        )
    return stored


def _rows_of(file: BinaryIO, size: int, batch: int, dtype: str) -> int:
    """The rows of a begun file that are sure to be whole; the file is cut off behind them.

    The last batch that it has is not: after a crash of the machine it may be of zeros.
    """
    try:
        version = npy.read_magic(file)
        shape, _, found = npy.read_array_header_1_0(file)
        fits = version == (1, 0) and shape[0] == size and found == np.dtype(dtype)
    except ValueError:  # Cut off within the header, or of nothing.
        fits = False
    start = file.tell()
    row = np.dtype(dtype).itemsize * shape[1] if fits else 1
    batches = (file.seek(0, os.SEEK_END) - start) // (row * batch)
    begun = max(batches - 1, 0) * batch if fits else 0
    end = start + begun * row if begun else 0
    file.seek(end)
    file.truncate()
    return begun
