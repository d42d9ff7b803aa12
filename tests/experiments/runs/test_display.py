"""What is shown of runs while they go on."""

import pytest

from experiments.program.experiment import Experiment
from experiments.runs.display import Display
from experiments.runs.open_run import Run
from experiments.runs.training import train_together


@pytest.fixture
def experiment(small_config):
    """One step a call, so that there is something to tell within an epoch."""
    config = small_config("otrw_global")
    config.steps_per_call = 4
    return Experiment(config)


def runs_in(folder):
    return [Run(folder / f"seed_{seed}", seed, seed) for seed in (0, 1)]


def test_a_bar_covers_all_seeds_and_moves_within_epochs(experiment, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    moves, waited = [], []
    move, waiting = Display._move, Display.waiting
    monkeypatch.setattr(
        Display,
        "_move",
        lambda self, at: (move(self, at), moves.append((self._shown, self._total))),
    )
    monkeypatch.setattr(
        Display, "waiting", lambda self, what, *a, **k: (waited.append(what), waiting(self, what))
    )
    train_together(experiment, runs_in(tmp_path))
    assert {total for _, total in moves} == {10}
    completed = [at for at, _ in moves]
    assert completed == sorted(completed) and (completed[0], completed[-1]) == (0, 10)
    assert sum(at != int(at) for at in completed) > 10
    assert waited[0] == "stage1: compiling" and "evaluating" in waited
    stage2 = waited.index("stage2: features that are kept")
    assert waited[stage2 + 1] == "stage2: compiling"
    out = capsys.readouterr().out
    assert "10/10 epochs" in out and "otrw_global, 2 seeds" in out
    assert "epoch 1:" not in out  # Lines are for where there is no bar.


def test_without_a_terminal_lines_say_what_is_waited_for(experiment, tmp_path, monkeypatch, capsys):
    def unheard(self, epochs):
        raise AssertionError("nobody sees it")

    monkeypatch.setattr(Display, "within", unheard)
    for name in ("one", "other"):
        train_together(experiment, runs_in(tmp_path / name))
    lines = capsys.readouterr().out.splitlines()
    title = "otrw_global, 2 seeds: "
    for what in ("stage1: compiling", "stage2: features that are kept"):
        assert lines.count(title + what) == 1  # Compiled once.
    assert sum(line.startswith(title) for line in lines) == 3  # And "stage2: compiling".


def test_the_reading_of_the_data_is_told_first(small_config, capsys, monkeypatch):
    def never(*args, **kwargs):
        raise InterruptedError

    monkeypatch.setattr("experiments.program.experiment.Source", never)
    with pytest.raises(InterruptedError):
        Experiment(small_config("ce"))
    assert capsys.readouterr().out == "digits: reading the data\n"
