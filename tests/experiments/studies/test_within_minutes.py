"""The queue on digits: what is recorded is skipped, what was begun goes on, failures are noted."""

import math

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import reproduce
from experiments.configs.kinds import LISTED
from experiments.documents.results import document
from experiments.export import export
from experiments.runs.network_files import read_about, write_network
from experiments.runs.provenance import device_name
from experiments.runs.restoring import restore
from experiments.studies import rows
from experiments.studies.agenda import Cell, agenda
from experiments.studies.filling import FAILURES
from experiments.studies.records import read
from experiments.studies.tables import TABLES
from experiments.studies.within_minutes import _next
from otrw_jax.training.checkpoints import Checkpoints
from tests.experiments.shared import Interrupted, interrupt


@pytest.fixture(scope="module")
def arguments(data_dir):
    """Flags of `experiments.reproduce` for small runs on digits."""

    def make(folder, minutes, *more, epochs=2):
        return [
            "reproduce",
            "all",
            f"--minutes={minutes}",
            "--dataset=digits",
            f"--workdir={folder / 'runs'}",
            f"--records={folder / 'records'}",
            f"--set=data.data_dir={data_dir}",
            f"--set=stage1.epochs={epochs}",
            "--set=stage2.cb.epochs=1",
            "--set=stage2.crt.epochs=1",
            *more,
        ]

    return make


@pytest.fixture(scope="module")
def call(arguments):
    def run(*given, **more):
        with flagsaver.flagsaver():
            reproduce.main(flags.FLAGS(arguments(*given, **more)))

    return run


def runs_of(folder):
    return [(r["row"], r["seed"]) for r in read(folder / "records" / "digits.jsonl")]


def test_what_is_recorded_is_skipped(call, tmp_path, capsys, monkeypatch):
    call(tmp_path, 5, "--recipes=cb", "--seeds=0,1")
    assert runs_of(tmp_path) == [("cb", 0), ("cb", 1)]
    assert "left: nothing." in capsys.readouterr().out
    monkeypatch.setattr(rows, "Experiment", None)
    call(tmp_path, 5, "--recipes=cb", "--seeds=0,1")
    assert runs_of(tmp_path) == [("cb", 0), ("cb", 1)]
    # And no more than that is: of a third seed it is said how long it takes.
    call(tmp_path, 0, "--recipes=cb", "--seeds=0,1,2")
    out = capsys.readouterr().out
    assert "left: 1 runs; 0 min here by the seconds of the records." in out
    assert "next: digits, digits at 50, paper: cb, seeds 0, 1, 2: 0 min" in out


def test_a_failure_is_noted_and_the_next_is_taken(call, tmp_path, capsys, monkeypatch):
    train_together = rows.train_together

    def failing(experiment, *others, **options):
        if experiment.config.recipe == "cb":
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory.")
        return train_together(experiment, *others, **options)

    given = ("--recipes=cb,crt", "--seeds=0")
    with monkeypatch.context() as patch:
        patch.setattr(rows, "train_together", failing)
        call(tmp_path, 5, *given)
    assert runs_of(tmp_path) == [("crt", 0)]
    (failure,) = read(tmp_path / "records" / FAILURES)
    assert (failure["table"], failure["row"], failure["seeds"]) == ("digits", "cb", [0])
    assert failure["error"] == "RuntimeError: RESOURCE_EXHAUSTED: Out of memory."
    assert "left: 1 runs;" in capsys.readouterr().out
    # What failed comes last in the next call, and counts when it is done.
    call(tmp_path, 5, "--recipes=cb,crt", "--seeds=0,1")
    assert runs_of(tmp_path) == [("crt", 0), ("crt", 1), ("cb", 0), ("cb", 1)]


def test_a_data_set_that_is_not_there_is_left_out(call, tmp_path, capsys, monkeypatch):
    def absent(config):
        raise FileNotFoundError("digits is not in /nowhere.")

    monkeypatch.setattr(rows, "Experiment", absent)
    call(tmp_path, 5, "--recipes=cb,crt", "--seeds=0")
    assert capsys.readouterr().out.count("digits is left out: digits is not in /nowhere.") == 1
    assert read(tmp_path / "records" / FAILURES) == []


def test_a_kill_loses_an_epoch(call, tmp_path, monkeypatch):
    given = ("--recipes=ce", "--seeds=0")
    with monkeypatch.context() as patch:
        interrupt(patch, Checkpoints, "save", lambda args: args[0], 3)
        with pytest.raises(Interrupted):
            call(tmp_path / "killed", 5, *given, epochs=4)
    saved = []
    save = Checkpoints.save

    def noted(self, number, *args, **kwargs):
        saved.append(number)
        return save(self, number, *args, **kwargs)

    monkeypatch.setattr(Checkpoints, "save", noted)
    call(tmp_path / "killed", 5, *given, epochs=4)
    assert saved == [3, 4]
    call(tmp_path / "whole", 5, *given, epochs=4)
    one, other = (
        read(tmp_path / name / "records" / "digits.jsonl")[0]["results"]
        for name in ("killed", "whole")
    )
    assert one == other


def test_second_stages_start_from_network_files(call, tmp_path, capsys):
    """And cross-entropy's own record says where its network was trained."""
    call(tmp_path / "one", 5, "--recipes=ce,cb", "--seeds=0")
    path = tmp_path / "two" / "records" / "networks" / "ce.safetensors"
    export(tmp_path / "one" / "runs" / "digits" / "digits_if50" / "ce" / "seed_0", path)
    call(tmp_path / "two", 5, "--recipes=cb", "--seeds=0")
    assert not (tmp_path / "two" / "runs" / "digits" / "digits_if50" / "ce").exists()
    call(tmp_path / "two", 5, "--recipes=ce", "--seeds=0")
    records = {
        name: {r["row"]: r for r in read(tmp_path / name / "records" / "digits.jsonl")}
        for name in ("one", "two")
    }
    for row in ("ce", "cb"):
        one, two = (records[name][row] for name in ("one", "two"))
        assert one["results"] == two["results"] and one["config"] == two["config"]
        assert one["seconds_of"]["stage1"] == two["seconds_of"]["stage1"]
    assert records["two"]["ce"]["device"] == read_about(path)["device"]
    assert not any("device_of" in record for record in records["two"].values())


def test_a_first_stage_of_another_device_counts_for_that(call, tmp_path):
    """And its seconds are those of one run, where second stages are trained together."""
    for seed in (0, 1):
        call(tmp_path / "one", 5, "--recipes=ce", f"--seeds={seed}")
        run = tmp_path / "one" / "runs" / "digits" / "digits_if50" / "ce" / f"seed_{seed}"
        path = tmp_path / "two" / "records" / "networks" / f"{seed}.safetensors"
        about = export(run, path) | {"device": "gpu: made"}
        write_network(path, restore(run, "stage1").state.variables, about)
    call(tmp_path / "two", 5, "--recipes=ce,cb,crt", "--seeds=0,1", "--set=seeds_at_once=2")
    records = read(tmp_path / "two" / "records" / "digits.jsonl")
    spent = sum(epoch["seconds"] for epoch in about["history"])
    for record in records:
        assert record["seeds_together"] == (1 if record["row"] == "ce" else 2)
        if record["row"] == "ce":
            assert record["device"] == "gpu: made" and "device_of" not in record
            continue
        assert record["device"] == device_name() and record["device_of"] == {"stage1": "gpu: made"}
        if record["seed"] == 1:
            assert record["seconds_of"]["stage1"] / 2 == pytest.approx(spent, abs=0.02)
    text = document(tmp_path / "two" / "records")
    assert f"Device {device_name()} and gpu: made;" in text


def test_it_keeps_to_its_minutes_and_goes_on(call, tmp_path, capsys, monkeypatch):
    """A clock on which an epoch takes a minute."""
    now = 0.0
    save = Checkpoints.save

    def minute_later(self, *args, **kwargs):
        nonlocal now
        now += 60
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Checkpoints, "save", minute_later)
    monkeypatch.setattr("time.monotonic", lambda: now)
    given = ("--recipes=ce,cb", "--seeds=0")
    call(tmp_path, 3.5, *given, epochs=5)
    assert now == 180 and runs_of(tmp_path) == []
    out = capsys.readouterr().out
    assert "the time is over after epoch 3" in out and "left: 2 runs;" in out
    call(tmp_path, 10, *given, epochs=5)
    # Two epochs of cross-entropy, then the stage taken over and one of the head.
    assert now == 180 + 2 * 60 + 2 * 60
    assert runs_of(tmp_path) == [("ce", 0), ("cb", 0)]


def test_what_fits_comes_before_what_does_not(monkeypatch):
    """By seeds: a second stage whose first stage is there does not wait for the others'."""
    ce, head, other = (Cell("table1", r, "cifar10", 100.0, "short", (0, 1)) for r in "abc")
    known = {
        (ce, 1): {"stage1": 9000.0},
        (head, 0): {"stage2": math.nan},
        (head, 1): {"stage1": 9000.0, "stage2": math.nan},
        (other, 0): {"stage2": 60.0},
        (other, 1): {"stage2": 60.0},
    }

    class Known:
        def left(self, cell, seed=None):
            if seed is not None:
                return known[cell._replace(seeds=(0, 1)), seed]
            return [s for s in cell.seeds if (cell._replace(seeds=(0, 1)), s) in known]

    waiting, order = [ce, head, other], []
    while waiting:
        cell, waiting = _next(waiting, Known(), Known(), 600.0)
        order.append((cell.row, cell.seeds))
    assert order == [("b", (0,)), ("c", (0, 1)), ("a", (0, 1)), ("b", (1,))]


def test_the_agenda_has_every_cell_of_every_table():
    cells = list(agenda(("short", "paper")))
    for name, table in TABLES.items():
        # Those of images that are the user's are run by name.
        rows = set() if table.dataset in LISTED else set(table.rows)
        assert {cell.row for cell in cells if cell.table == name} == rows
    cifar = [cell for cell in cells if cell.dataset.startswith("cifar")]
    assert {cell.protocol for cell in cifar} == {"short", "paper"}
    assert {cell.protocol for cell in cells if cell not in cifar} == {"paper"}
    assert cells[0][:5] == ("table1", "ce", "cifar10", 100.0, "short")
    assert next(agenda(("paper", "short")))[:5] == ("table1", "ce", "cifar10", 100.0, "paper")
