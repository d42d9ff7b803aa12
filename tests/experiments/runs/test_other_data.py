"""Runs whose data set is no longer the one that they were trained on are not gone on with."""

import shutil

import pytest

from experiments.program import data
from experiments.program.experiment import Experiment
from experiments.runs.directory import ConfigMismatchError, check_same_data
from experiments.runs.open_run import Run
from experiments.runs.restoring import restore, restore_first
from experiments.runs.training import train
from otrw_jax.data.sources import load_dataset
from otrw_jax.files import read_json, write_json

HERE = r"copy holds a run of other data: fingerprint is '\w+' there and '\w+' here\. Give the fo"


@pytest.fixture
def copy(whole_run, tmp_path):
    return shutil.copytree(whole_run[0], tmp_path / "copy")


@pytest.fixture
def elsewhere(data_dir, tmp_path, monkeypatch):
    """A data folder whose training examples stand in another order."""
    folder = tmp_path / "elsewhere"

    def load(name, given, *more):
        if str(given) != str(folder):
            return load_dataset(name, given, *more)
        found = load_dataset(name, data_dir, *more)
        return found._replace(
            train_inputs=found.train_inputs[::-1], train_labels=found.train_labels[::-1]
        )

    monkeypatch.setattr(data, "load_dataset", load)
    return folder


def test_a_run_is_not_restored_on_other_data(copy, elsewhere, data_dir):
    with pytest.raises(ConfigMismatchError, match=HERE):
        restore(copy, data_dir=str(elsewhere))
    assert restore(copy, data_dir=str(data_dir)).number == 5


def test_a_run_does_not_go_on_with_other_data(copy, elsewhere, small_config, tmp_path):
    config = small_config("otrw_paper")
    config.data.data_dir = str(elsewhere)
    experiment, before = Experiment(config), (copy / "run.json").read_bytes()
    with pytest.raises(ConfigMismatchError, match=HERE):
        train(experiment, copy, 0, 0)
    assert (copy / "run.json").read_bytes() == before
    with pytest.raises(ConfigMismatchError, match=HERE):
        restore_first(experiment, Run(copy, 0, 0))
    with pytest.raises(ConfigMismatchError, match=HERE):
        train(experiment, tmp_path / "new", 0, 0, stage1_from=copy)


def test_a_test_set_of_another_size_is_other_data(copy, experiment):
    prepared = experiment.prepare(0)
    check_same_data(copy, prepared)
    write_json(copy / "run.json", read_json(copy / "run.json") | {"test": 7})
    with pytest.raises(ConfigMismatchError, match="other data: test is 7 there and 400 here"):
        check_same_data(copy, prepared)
    (copy / "run.json").unlink()
    check_same_data(copy, prepared)
