"""What the seconds of records say of cells that are still to be run, device by device."""

import math
import pathlib

import pytest

from experiments.runs.provenance import device_name
from experiments.studies.agenda import Cell
from experiments.studies.estimates import Estimates
from experiments.studies.filling import Filler, Folders

CELL = Cell("table1", "cb", "cifar10", 100.0, "short", (0,))
GPU = "gpu: NVIDIA H100"


def left(records, tmp_path, cell=CELL):
    """Seconds of a cell's stages, where these records are all that is known."""
    filler = Filler(Folders(tmp_path / "records", tmp_path / "runs"), {})
    estimates = Estimates(filler)
    for one in records:
        estimates.note(one | {"config": filler.fields(cell, 0)})
    return {name[0]: seconds for name, seconds in estimates.left(cell, 0).items()}


def record(device, stage1, stage2, together=1, **more):
    seconds = {"seconds_of": {"stage1": stage1, "stage2": stage2}, "seconds": stage1 + stage2}
    return {"device": device, "seeds_together": together, **seconds, **more}


def test_the_seconds_of_this_device_count_and_no_other_platforms(tmp_path):
    here, gpu = record(device_name(), 400.0, 20.0), record(GPU, 40.0, 2.0)
    assert left([gpu, here], tmp_path) == {"stage1": 400.0, "stage2": 20.0}
    assert all(map(math.isnan, left([gpu], tmp_path).values()))
    assert left([record("cpu: other", 800.0, 40.0)], tmp_path)["stage1"] == 800.0
    assert left([here | {"seeds_together": 4}], tmp_path) == {"stage1": 100.0, "stage2": 5.0}


def test_a_first_stage_that_came_from_another_device_says_nothing_of_this(tmp_path):
    one = record(device_name(), 40.0, 20.0, device_of={"stage1": GPU})
    found = left([one], tmp_path)
    assert math.isnan(found["stage1"]) and found["stage2"] == 20.0


def test_what_a_run_has_left_is_its_share_of_what_seeds_take_together(tmp_path):
    cell = CELL._replace(row="ce")
    folder = tmp_path / "runs" / "table1" / "cifar10_if100_short" / "ce" / "seed_0"
    folder.mkdir(parents=True)
    line = '{"stage": "stage1", "number": 1, "seconds": 30.0, "seeds_together": 3}\n'
    pathlib.Path(folder / "metrics.jsonl").write_text(line)
    assert left([], tmp_path, cell)["stage1"] == pytest.approx(39 * 10.0)
