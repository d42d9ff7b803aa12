"""Inputs that stay on the disk, read by their ids in threads: the one file that knows grain."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Int, PyTree

from otrw_jax.checks import check_number
from otrw_jax.extras import brought_by

with brought_by("stream", __name__):
    import grain

PIECE = 4
"""Inputs that a thread reads in one go, since each time costs some of them."""


class Stored(Protocol):
    """Inputs by number, such as a memory-mapped array or the images of files."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, number: int, /) -> Any:
        """One input: an array, or a pytree of arrays, of the shapes and types that all have."""


class Stream:
    """Stored inputs, batch by batch in any order, as `otrw_jax.training.streaming` reads them.

    Inputs are read one by one in threads, which serves where reading releases Python's lock, as
    files, decoders of images and NumPy's copies do.
    """

    def __init__(
        self,
        stored: Stored,
        view: Callable[[Any], PyTree] | None = None,
        threads: int = 16,
        ahead: int = 2,
    ):
        """Opens nothing yet.

        Args:
            stored: the inputs.
            view: what is made of one on the host, in the thread that reads it; as it is stored
                where None.
            threads: that read.
            ahead: batches that are read before they are asked for, where there are not more
                threads than these have pieces.

        Raises:
            ValueError: a number is less than 1.
        """
        check_number("Stream", "threads", threads, least=1, whole=True)
        check_number("Stream", "ahead", ahead, least=1, whole=True)
        self._stored, self._view = stored, view
        self._threads, self._ahead = threads, ahead

    def __len__(self) -> int:
        return len(self._stored)

    @contextlib.contextmanager
    def batches(self, ids: Int[np.ndarray, "n"], size: int) -> Iterator[Iterator[PyTree]]:
        """Opens the inputs of examples, in the order of their ids.

        Args:
            ids: of those that are wanted.
            size: of a batch; the last has what is left.

        Returns:
            An iterator over pytrees of arrays `[size, ...]`.

        Raises:
            ValueError: an id is of no input, or `size` is less than 1; (from the iterator) inputs
                of a batch are not of one shape and type. Whatever reading raises comes from the
                iterator at the input's batch; those before it have been given.
        """
        check_number("Stream", "size", size, least=1, whole=True)
        if len(ids) and not (ids.min() >= 0 and ids.max() < len(self)):
            raise ValueError(
                f"Stream: ids are {ids.min()} to {ids.max()}; there are {len(self)} inputs, "
                "numbered from 0."
            )
        pieces = _Pieces(ids, size)
        ahead = max(self._ahead * pieces.of_batch, self._threads)
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=ahead)
        read = iter(grain.MapDataset.source(pieces).map(self._read).to_iter_dataset(options))
        try:
            yield _batches(read, pieces.of_batch)
        finally:
            read.close()

    def _read(self, ids: Int[np.ndarray, "p"]) -> list[Any]:
        stored = (self._stored[int(number)] for number in ids)
        return [one if self._view is None else self._view(one) for one in stored]


class _Pieces:
    """Ids in parts of batches, each of which a thread reads in one go."""

    def __init__(self, ids: Int[np.ndarray, "n"], size: int):
        self._ids, self._size = ids, size
        self.of_batch = -(-size // PIECE)

    def __len__(self) -> int:
        whole, rest = divmod(len(self._ids), self._size)
        return whole * self.of_batch + -(-rest // PIECE)

    def __getitem__(self, number: int) -> Int[np.ndarray, "p"]:
        batch, piece = divmod(int(number), self.of_batch)
        start = batch * self._size
        end = min(start + (piece + 1) * PIECE, start + self._size)
        return self._ids[start + piece * PIECE : end]


def _batches(read: Iterator[list[Any]], of_batch: int) -> Iterator[PyTree]:
    """Batches of inputs, of so many pieces each."""
    while pieces := list(itertools.islice(read, of_batch)):
        yield _stacked(list(itertools.chain.from_iterable(pieces)))


def _stacked(inputs: list[PyTree]) -> PyTree:
    """Inputs of a batch with a leading axis of examples."""
    kinds = {str(jax.tree.map(_kind, one)).replace("'", "") for one in inputs}
    if len(kinds) > 1:
        raise ValueError(
            f"Stream: inputs of one batch are {' and '.join(sorted(kinds)[:3])}; bring them to one "
            "shape and type by `view`."
        )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *inputs)


def _kind(leaf: Any) -> str:
    array = np.asarray(leaf)
    return f"{array.dtype} {array.shape}"
