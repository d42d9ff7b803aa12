"""Arrays that take long to compute, computed once and kept on the disk."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import filelock
import numpy as np

from otrw_jax.data.sources import save_arrays

Arrays = dict[str, np.ndarray]


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
    with turn(path) as in_order:
        if path.exists():
            return _kept(path)
        arrays = compute(in_order)
        _keep(path, arrays)
    return arrays


@contextlib.contextmanager
def turn(path: pathlib.Path) -> Iterator[bool]:
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
