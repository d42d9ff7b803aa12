"""Levers of training: what a config turns on changes the run, and what cannot be is refused."""

import numpy as np
import pytest

from experiments.program.experiment import Experiment
from experiments.program.networks import make_model
from experiments.recipes import make_stages
from experiments.runs.directory import ConfigMismatchError
from experiments.runs.training import train

pytestmark = pytest.mark.usefixtures("rank_promotion")

COUNTS = np.array([30, 20, 10, 9, 8, 7, 6, 5, 4, 3])


def stages_of(config):
    return make_stages(config, make_model(config.model, 10), COUNTS)


def test_a_run_with_all_levers(small_config, tmp_path):
    config = small_config("cb")
    config.stage1.epochs = config.stage2.cb.epochs = 2
    config.stage1.optimizer.schedule = "cosine"
    config.stage1.levers.update({"mixup": 0.2, "sam": 0.05, "ema": 0.9, "smoothing": 0.1})
    config.stage2.cb.levers.update({"smoothing": 0.4, "smoothing_tail": 0.1, "ema": 0.5})
    experiment = Experiment(config)
    results = train(experiment, tmp_path / "a", 0, 0)
    assert results["last"]["epoch"] == 4 and results["last"]["error"] < 80
    again = train(Experiment(config), tmp_path / "b", 0, 0)
    assert again == results
    # The first stage's levers are part of what another run takes over.
    config.stage1.levers.mixup = 0.0
    with pytest.raises(ConfigMismatchError, match=r"differs in stage1\.levers\.mixup"):
        train(Experiment(config), tmp_path / "c", 0, 0, tmp_path / "a")


@pytest.mark.parametrize("lever", ["mixup", "sam"])
def test_levers_that_a_method_does_not_have(small_config, lever):
    config = small_config("l2rw")
    config.stage1.levers[lever] = 0.1
    with pytest.raises(ValueError, match=rf"levers\.{lever} goes with stages of empirical risk"):
        stages_of(config)


def test_recalibration_comes_between_the_stages(small_config):
    config = small_config("crt")
    config.recalibration_epochs = 3
    stages = stages_of(config)
    assert [stage.name for stage in stages] == ["stage1", "recalibration", "stage2"]
    assert stages[1].epochs == 3 and stages[1].method.sampling is not None


def test_another_first_stage_is_not_taken_over(small_config, tmp_path):
    config = small_config("focal")
    config.stage1.epochs = 1
    train(Experiment(config), tmp_path / "focal", 0, 0)
    other = small_config("cb")
    other.stage1.epochs = 1
    with pytest.raises(ConfigMismatchError, match="differs in recipe"):
        train(Experiment(other), tmp_path / "cb", 0, 0, tmp_path / "focal")


def test_unknown_schedules_and_impossible_ones(small_config):
    config = small_config("ce")
    config.stage1.optimizer.schedule = "linear"
    with pytest.raises(ValueError, match="'linear'; choose steps or cosine"):
        stages_of(config)
    config.stage1.optimizer.update({"schedule": "cosine", "milestones": (2,)})
    with pytest.raises(ValueError, match="a cosine has no milestones"):
        stages_of(config)
