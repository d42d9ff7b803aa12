"""Runs that get more epochs, or another rate from a checkpoint on."""

import shutil

import numpy as np
import pytest

from experiments.program.experiment import Experiment
from experiments.runs.directory import ConfigMismatchError
from experiments.runs.journal import Reporter
from experiments.runs.restoring import restore
from experiments.runs.training import train
from otrw_jax.files import read_json
from otrw_jax.training.checkpoints import CheckpointError
from otrw_jax.training.loop import TrainingDivergedError
from tests.experiments.shared import Interrupted, history_of, interrupt

RATE = "stage2.otrw_paper.optimizer.learning_rate"
EPOCHS = "stage2.otrw_paper.epochs"


@pytest.fixture
def under(small_config):
    """The experiment of `otrw_paper` under other fields."""

    def make(**fields):
        config = small_config("otrw_paper")
        config.update_from_flattened_dict(fields)
        return Experiment(config)

    return make


@pytest.fixture
def copy(whole_run, tmp_path):
    return shutil.copytree(whole_run[0], tmp_path / "copy")


def test_a_finished_run_with_more_epochs_is_the_longer_run(
    under, copy, whole_run, final_state, assert_same_bits, tmp_path, capsys
):
    longer = under(**{EPOCHS: 4})
    wanted = train(longer, tmp_path / "long", 0, 0, whole_run[0])
    with pytest.raises(ConfigMismatchError, match=r"epochs is 2 there and 4 here.*give --extend"):
        train(longer, copy, 0, 0)
    assert train(longer, copy, 0, 0, extend=True) == wanted
    assert f"extended after epoch 5: {EPOCHS} 2 to 4" in capsys.readouterr().out
    assert history_of(copy) == history_of(tmp_path / "long")
    assert_same_bits(final_state(longer, copy), final_state(longer, tmp_path / "long"))

    config = read_json(copy / "config.json")
    assert config["extended"] == [{"after": 5, "fields": {EPOCHS: [2, 4]}}]
    assert train(longer, copy, 0, 0, extend=True) == wanted  # As before, the command is repeated.
    assert read_json(copy / "config.json") == config
    with pytest.raises(
        ConfigMismatchError, match=r"that was extended \(after epoch 5: .* 2 to 4\)"
    ):
        train(longer, copy, 0, 0)
    assert restore(copy, "7").number == 7 and restore(copy, "3").stage.name == "stage1"


def test_a_run_that_diverged_goes_on_at_a_smaller_rate(under, whole_run, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(TrainingDivergedError) as caught:
        train(under(**{RATE: 1e30}), workdir, 0, 0, whole_run[0])
    message = str(caught.value)
    assert "stage2: the training loss is" in message
    assert f"{workdir} keeps the epochs up to 3: repeat the command with a smaller" in message
    assert f"--config.{RATE} and --extend" in message
    assert f"another --workdir, with --config.stage1_from={workdir} for its first" in message
    results = train(under(), workdir, 0, 0, extend=True)
    assert results == whole_run[1]
    assert read_json(workdir / "config.json")["extended"][0]["fields"] == {RATE: [1e30, 0.01]}


def test_a_rate_changes_from_a_checkpoint_on(under, whole_run, experiment, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt(patch, Reporter, "epoch", lambda args: args[0]["number"], 4)
        with pytest.raises(Interrupted):
            train(experiment, workdir, 0, 0, whole_run[0])
    train(under(**{RATE: 1e-4}), workdir, 0, 0, extend=True)
    found, wanted = history_of(workdir), history_of(whole_run[0])
    assert found[:4] == wanted[:4] and found[4]["loss"] != wanted[4]["loss"]
    assert np.isfinite(found[4]["loss"])


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"stage1.epochs": 4}, ValueError, r"stage1\.epochs cannot change .* stage1 is behind"),
        ({"stage1.optimizer.learning_rate": 0.1}, ValueError, "since stage1 is behind"),
        ({"stage1.batch_size": 16}, ValueError, r"stage1\.batch_size cannot .* it is neither"),
        ({EPOCHS: 1}, ValueError, "epochs is 1, and the run in .* has 2 epochs of this stage"),
        ({RATE: 0.1}, ValueError, "has all its epochs behind it; give more of them"),
        (
            {EPOCHS: 4, "stage2.otrw_paper.optimizer.schedule": "cosine"},
            CheckpointError,
            "checkpoint 5 in .* is of another model or method: opt_state",
        ),
    ],
)
def test_what_cannot_be_extended_is_refused_and_changes_nothing(
    fields, error, message, under, copy
):
    before = read_json(copy / "config.json")
    with pytest.raises(error, match=message):
        train(under(**fields), copy, 0, 0, extend=True)
    assert read_json(copy / "config.json") == before


def test_a_first_stage_of_changed_rates_is_not_taken_over(under, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt(patch, Reporter, "epoch", lambda args: args[0]["number"], 1)
        with pytest.raises(Interrupted):
            train(under(), workdir, 0, 0)
    other = under(**{"stage1.optimizer.learning_rate": 0.01})
    train(other, workdir, 0, 0, extend=True)
    with pytest.raises(ConfigMismatchError, match="differs in its rates, by an extension"):
        train(other, tmp_path / "new", 0, 0, workdir)
