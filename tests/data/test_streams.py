"""Inputs by their ids: which, in what order, and what is said of those that cannot be read."""

import threading
import time

import numpy as np
import pytest

from otrw_jax.data.streams import PIECE, Stream

VALUES = np.arange(40, dtype=np.float32).reshape(20, 2)
IDS = np.random.default_rng(0).permutation(20)[:17]


def read(stream, ids=IDS, size=5):
    with stream.batches(ids, size) as batches:
        return list(batches)


@pytest.mark.parametrize("threads", [1, 8])
def test_batches_are_those_of_the_ids_in_their_order(threads, tmp_path):
    np.save(tmp_path / "values.npy", VALUES)
    stored = np.load(tmp_path / "values.npy", mmap_mode="r")
    found = read(Stream(stored, threads=threads))
    assert [len(one) for one in found] == [5, 5, 5, 2]
    assert all(type(one) is np.ndarray and one.dtype == np.float32 for one in found)
    np.testing.assert_array_equal(np.concatenate(found), VALUES[IDS])


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 17, 99])
def test_batches_of_any_size_are_whole(size):
    found = read(Stream(VALUES, threads=2), size=size)
    whole, rest = divmod(17, size)
    assert [len(one) for one in found] == [size] * whole + [rest] * (rest > 0)
    np.testing.assert_array_equal(np.concatenate(found), VALUES[IDS])


def test_views_and_pytrees():
    stream = Stream(VALUES, lambda row: {"sum": row.sum(), "row": row[:1]})
    (found,) = read(stream, size=17)
    np.testing.assert_array_equal(found["sum"], VALUES[IDS].sum(1))
    np.testing.assert_array_equal(found["row"], VALUES[IDS, :1])


def test_a_view_may_be_read_before_it_is_asked_for_but_no_further_than_said():
    seen = []
    stream = Stream(VALUES, lambda row: seen.append(1) or row, threads=2, ahead=1)
    with stream.batches(np.arange(20), 4) as batches:
        next(batches)
        assert len(seen) <= 4 + (2 + 1) * PIECE


def test_threads_end_with_what_was_opened():
    before = threading.active_count()
    for _ in range(10):
        with Stream(VALUES, threads=4).batches(IDS, 5) as batches:
            next(batches)
    # They are told to end, and do so a moment later.
    limit = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < limit:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_what_cannot_be_read_comes_at_its_batch():
    def view(row):
        if row[0] == 2 * IDS[7]:
            raise ValueError("input 7 is damaged.")
        return row

    with Stream(VALUES, view).batches(IDS, 5) as batches:
        np.testing.assert_array_equal(next(batches), VALUES[IDS[:5]])
        with pytest.raises(ValueError, match="input 7") as told:
            next(batches)
    assert str(told.value) == "input 7 is damaged."


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="ids are 0 to 20; there are 20 inputs, numbered from 0"):
        read(Stream(VALUES), np.arange(21))
    with pytest.raises(ValueError, match="ids are -1 to 3"):
        read(Stream(VALUES), np.array([3, -1]))
    uneven = Stream(VALUES, lambda row: row[: 1 + int(row[0] > 20)])
    with pytest.raises(ValueError, match=r"one batch are float32 \(1,\) and float32 \(2,\)"):
        read(uneven, size=17)
    # NumPy would make all of them the wider type, and a program of that batch alone.
    mixed = Stream(VALUES, lambda row: {"row": row.astype(np.float16 if row[0] > 20 else "f4")})
    with pytest.raises(ValueError, match=r"are \{row: float16 \(2,\)\} and \{row: float32 \(2,\)"):
        read(mixed, size=17)
    with pytest.raises(ValueError, match="threads is 0"):
        Stream(VALUES, threads=0)
    with pytest.raises(ValueError, match="size is 0"):
        read(Stream(VALUES), size=0)
    assert len(Stream(VALUES)) == 20 and read(Stream(VALUES), IDS[:0]) == []
