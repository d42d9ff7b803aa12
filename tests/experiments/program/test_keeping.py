"""Rows that take long to compute: kept as they come, and gone on with after a kill."""

import threading

import numpy as np
import pytest

from experiments.program.keeping import _turn, kept_rows

BATCH, BLOCK, WIDTH = 4, 8, 3
SIZES = {"train": 37, "test": 5}


class Computed:
    """Rows whose content tells their part, number, and place in a batch; counts those it gives."""

    def __init__(self, fail_after=None):
        self.starts, self.given, self._left = [], 0, fail_after

    def __call__(self, part, start):
        assert start % BATCH == 0
        self.starts.append((part, start))
        for at in range(start, SIZES[part], BLOCK):
            rows = np.arange(at, min(at + BLOCK, SIZES[part]))
            if self._left is not None and self._left <= 0:
                raise KeyboardInterrupt
            if self._left is not None:
                self._left -= 1
            self.given += len(rows)
            offset = 1000 * list(SIZES).index(part)
            yield np.stack([offset + rows, rows % BATCH, rows / 7], axis=1).astype(np.float32)


def rows(folder, computed, dtype="float16"):
    return kept_rows(folder, SIZES, computed, BATCH, dtype)


def test_rows_are_kept_in_the_type_asked_for_and_computed_once(tmp_path):
    computed = Computed()
    found = rows(tmp_path / "a", computed)
    assert {part: (x.shape, x.dtype) for part, x in found.items()} == {
        part: ((size, WIDTH), np.float16) for part, size in SIZES.items()
    }
    expected = np.concatenate(list(Computed()("train", 0))).astype(np.float16)
    np.testing.assert_array_equal(found["train"], expected)
    assert isinstance(found["train"], np.memmap)
    rows(tmp_path / "a", computed)
    assert computed.given == sum(SIZES.values())
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["test.npy", "train.npy"]


@pytest.mark.parametrize("after", range(6))
def test_a_kill_loses_a_block_or_two_and_no_bit(tmp_path, after, capsys):
    whole = rows(tmp_path / "whole", Computed())
    begun = Computed(fail_after=after)
    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path / "a", begun)
    again = Computed()
    found = rows(tmp_path / "a", again)
    for part in SIZES:
        assert (tmp_path / "a" / f"{part}.npy").read_bytes() == (
            tmp_path / "whole" / f"{part}.npy"
        ).read_bytes()
        np.testing.assert_array_equal(found[part], whole[part])
    # All but the last batch of what was given is there, where its part had not ended.
    assert begun.given + again.given <= sum(SIZES.values()) + BATCH
    told = f"train.npy: {max(8 * after - 4, 0)} of 37 rows are there already."
    assert (told in capsys.readouterr().out) == (0 < after < 5)


@pytest.mark.parametrize("left", [0, 5, 60, 128, 129, 133, 200, 10_000])
def test_a_file_that_ends_anywhere_is_gone_on_with(tmp_path, left):
    rows(tmp_path / "whole", Computed())
    content = (tmp_path / "whole" / "train.npy").read_bytes()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.npy.begun").write_bytes(content[:left])
    rows(tmp_path / "a", Computed())
    assert (tmp_path / "a" / "train.npy").read_bytes() == content


def test_a_begun_file_of_another_type_is_begun_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path / "a", Computed(fail_after=3), "float32")
    computed = Computed()
    found = rows(tmp_path / "a", computed)
    assert found["train"].dtype == np.float16 and computed.starts[0] == ("train", 0)


def test_where_nothing_can_be_written_they_are_computed_all_the_same(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    found = rows(tmp_path / "file" / "a", Computed())
    assert found["train"].shape == (37, WIDTH) and found["train"].dtype == np.float16
    assert "features are not kept, and a further run computes them anew" in capsys.readouterr().out


def test_others_wait_and_compute_nothing(tmp_path, capsys):
    waiting, computed, found = threading.Event(), Computed(), []
    with _turn(tmp_path / "a"):
        other = threading.Thread(
            target=lambda: (waiting.set(), found.append(rows(tmp_path / "a", computed)))
        )
        other.start()
        waiting.wait()
        (tmp_path / "a").mkdir()
        whole = rows(tmp_path / "whole", Computed())
        for part, array in whole.items():
            np.save(tmp_path / "a" / f"{part}.npy", array)
    other.join()
    assert computed.given == 0
    np.testing.assert_array_equal(found[0]["test"], whole["test"])


@pytest.mark.parametrize("value", [1e5, np.nan])
@pytest.mark.parametrize("writable", [True, False])
def test_what_is_not_finite_is_refused(tmp_path, value, writable):
    def large(part, start):
        yield np.full((SIZES[part], WIDTH), value, np.float32)

    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="features are not finite as float16; take other weights"):
        rows(tmp_path / ("a" if writable else "file/a"), large)


def test_fewer_rows_than_there_are_to_be_are_refused(tmp_path):
    def short(part, start):
        yield np.ones((4, WIDTH), np.float32)

    with pytest.raises(ValueError, match=r"4 rows were computed, and 37 are wanted\."):
        rows(tmp_path / "a", short)
    assert not (tmp_path / "a" / "train.npy").exists()
