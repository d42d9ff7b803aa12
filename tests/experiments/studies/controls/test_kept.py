"""Cells that are done: found again, and bound to all that they come from."""

import pytest

from experiments.studies.controls.kept import KeptCells

IDENTITY = {
    "config": "0f",
    "seeds": [0, 1],
    "subsets": ["a", "b"],
    "first stages": ["c", "d"],
    "versions": {"jax": "0.10"},
    "device": "cpu",
}
ONE = {"ce/none/none": {"last": [20.0, 21.0]}, "cb/none/none": {"last": [18.0, 19.0]}}
TWO = {"ce/none/global": {"last": [17.0, 16.0]}}


def test_groups_are_found_again_in_their_order(tmp_path):
    path = tmp_path / "cells.json"
    kept = KeptCells(path, IDENTITY)
    assert kept.cells == {} and kept.seconds == 0 and not path.exists()
    kept.add("none/none", ONE, 2.5)
    kept.add("none/global", TWO, 4.0)
    again = KeptCells(path, IDENTITY)
    assert again.cells == ONE | TWO and [*again.cells] == [*ONE, *TWO]
    assert again.seconds == 6.5
    assert "none/none" in again and "ten/none" not in again
    again.finish()
    assert KeptCells(path, IDENTITY).cells == {}


@pytest.mark.parametrize("name", IDENTITY)
def test_cells_of_something_else_are_refused_and_stay(tmp_path, name):
    path = tmp_path / "cells.json"
    KeptCells(path, IDENTITY).add("none/none", ONE, 1.0)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"cells.json holds cells of other {name}; choose"):
        KeptCells(path, IDENTITY | {name: "another"})
    assert path.read_bytes() == before


def test_a_damaged_file_is_told(tmp_path):
    path = tmp_path / "cells.json"
    path.write_text('{"of": {"config"')
    with pytest.raises(ValueError, match=r"cells.json is damaged"):
        KeptCells(path, IDENTITY)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"cells of other config and seeds and"):
        KeptCells(path, IDENTITY)
