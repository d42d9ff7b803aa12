"""Several seeds in one program, several devices for one batch: the runs are those alone."""

import json

import jax
import numpy as np
import pytest

from experiments.program.experiment import Experiment
from experiments.program.scores import scores, scores_together
from experiments.runs import training
from experiments.runs.journal import Reporter
from experiments.runs.open_run import Run
from experiments.runs.training import train, train_together
from otrw_jax.files import read_json
from otrw_jax.training.checkpoints import Checkpoints
from tests.experiments.shared import Interrupted, history_of

pytestmark = pytest.mark.usefixtures("rank_promotion")

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def experiment(small_config):
    """Features of the frozen backbone are kept; weights are refreshed every epoch."""
    config = small_config("otrw_global")
    config.keep_checkpoints = 1
    return Experiment(config)


@pytest.fixture(scope="module")
def alone(experiment, tmp_path_factory):
    """Run directories of the seeds, each trained by itself."""
    folder = tmp_path_factory.mktemp("alone")
    for seed in SEEDS:
        train(experiment, folder / f"seed_{seed}", seed, seed)
    return folder


def runs_in(folder):
    return [Run(folder / f"seed_{seed}", seed, seed) for seed in SEEDS]


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_runs(found, wanted, seeds=SEEDS, rel=1e-4):
    for seed in seeds:
        pairs = zip(records(found / f"seed_{seed}"), records(wanted / f"seed_{seed}"), strict=True)
        for one, other in pairs:
            assert one["number"] == other["number"] and one["stage"] == other["stage"]
            assert one["loss"] == pytest.approx(other["loss"], rel=rel)
            assert one["test"] == pytest.approx(other["test"], abs=0.6)


def assert_same_states(found, wanted, experiment, final_state, seeds=SEEDS):
    for seed in seeds:
        states = [
            final_state(experiment, folder / f"seed_{seed}", seed=seed)
            for folder in (found, wanted)
        ]
        for a, b in zip(*map(jax.tree.leaves, states), strict=True):
            if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_seeds_together_equal_seeds_alone(experiment, alone, final_state, tmp_path):
    results = train_together(experiment, runs_in(tmp_path))
    assert_same_runs(tmp_path, alone)
    assert_same_states(tmp_path, alone, experiment, final_state)
    for seed, result in zip(SEEDS, results, strict=True):
        workdir = tmp_path / f"seed_{seed}"
        assert read_json(workdir / "results.json") == result
        assert {record["seeds_together"] for record in records(workdir)} == {3}
        fingerprints = [
            read_json(folder / f"seed_{seed}" / "run.json")["fingerprint"]
            for folder in (alone, tmp_path)
        ]
        assert fingerprints[0] == fingerprints[1]


def test_a_stage_on_kept_features_is_evaluated_on_them(experiment, tmp_path, monkeypatch):
    seen = []

    def look(program, stage, variables, prepared):
        seen.append((stage.name, prepared.kept))
        return scores(program, stage, variables, prepared)

    monkeypatch.setattr(training, "scores", look)
    train(experiment, tmp_path, 0, 0)
    assert set(seen) == {("stage1", False), ("stage2", True)}


@pytest.mark.parametrize("kept", [False, True])
def test_evaluations_together_are_those_alone(kept, experiment, alone, final_state):
    variables = [
        final_state(experiment, alone / f"seed_{seed}", seed=seed).variables for seed in SEEDS
    ]
    prepared = [experiment.prepare(seed) for seed in SEEDS]
    program = experiment.program(prepared[0])
    stage = program.stages[-1]
    seen = prepared
    if kept:
        each = zip(SEEDS, prepared, variables, strict=True)
        seen = [program.seen(stage, *one) for one in each]
        assert seen[0].kept and seen[0].test.inputs.shape == (400, 64)
    found = scores_together(program, stage, variables, seen)
    for together, one, data in zip(found, variables, prepared, strict=True):
        for part, metrics in scores(program, stage, one, data).items():
            assert together[part] == pytest.approx(metrics, rel=1e-5)
    assert found[0]["held_out"] != found[1]["held_out"]


@pytest.fixture(scope="module")
def whole(experiment, tmp_path_factory):
    """Run directories of the seeds, trained together."""
    folder = tmp_path_factory.mktemp("whole")
    train_together(experiment, runs_in(folder))
    return folder


@pytest.mark.parametrize(("killed", "epoch"), [(0, 4), (1, 4), (0, 1), (1, 5)])
def test_a_kill_between_the_saves_of_two_seeds_is_mended(
    killed, epoch, experiment, whole, final_state, assert_same_bits, tmp_path, monkeypatch
):
    """The seeds that were saved go back to what all of them have, be it the start."""
    with monkeypatch.context() as patch:
        report = Reporter.epoch
        calls = []

        def interrupted(self, record):
            calls.append(record["number"])
            if calls.count(epoch) == killed + 1:
                raise Interrupted
            return report(self, record)

        patch.setattr(Reporter, "epoch", interrupted)
        with pytest.raises(Interrupted):
            train_together(experiment, runs_in(tmp_path))
    newest = []
    for run in runs_in(tmp_path):
        with Checkpoints(run.workdir / "checkpoints", read_only=True) as checkpoints:
            newest.append(max(checkpoints.steps(), default=0))
    assert newest == [epoch] * (killed + 1) + [epoch - 1] * (2 - killed)
    train_together(experiment, runs_in(tmp_path))
    for seed in SEEDS:
        ends = [final_state(experiment, at / f"seed_{seed}", seed=seed) for at in (tmp_path, whole)]
        assert_same_bits(*ends)
        assert history_of(tmp_path / f"seed_{seed}") == history_of(whole / f"seed_{seed}")


def test_a_seed_that_is_done_is_left_and_the_others_go_on(experiment, alone, tmp_path):
    done = train(experiment, tmp_path / "seed_1", 1, 1)
    before = (tmp_path / "seed_1" / "metrics.jsonl").read_text()
    results = train_together(experiment, runs_in(tmp_path))
    assert results[1] == done
    assert (tmp_path / "seed_1" / "metrics.jsonl").read_text() == before
    assert_same_runs(tmp_path, alone)


def test_a_run_on_eight_devices_equals_one_and_is_resumed_on_one(
    small_config, tmp_path, monkeypatch
):
    config = small_config("otrw_paper")
    train(Experiment(config), tmp_path / "one" / "seed_0", 0, 0)
    config.devices = 0
    spread = Experiment(config)
    train(spread, tmp_path / "eight" / "seed_0", 0, 0)
    assert_same_runs(tmp_path / "eight", tmp_path / "one", seeds=(0,))
    assert read_json(tmp_path / "eight" / "seed_0" / "run.json")["devices"] == 8

    with monkeypatch.context() as patch:
        report = Reporter.epoch

        def interrupted(self, record):
            report(self, record)
            if record["number"] == 4:
                raise Interrupted

        patch.setattr(Reporter, "epoch", interrupted)
        with pytest.raises(Interrupted):
            train(spread, tmp_path / "mixed" / "seed_0", 0, 0)
    config.devices = 1
    train(Experiment(config), tmp_path / "mixed" / "seed_0", 0, 0)
    assert_same_runs(tmp_path / "mixed", tmp_path / "one", seeds=(0,))


def test_kept_features_give_the_run_that_inputs_give(small_config, experiment, alone, tmp_path):
    config = small_config("otrw_global")
    config.stage2.otrw_global.feature_copies = 0
    train(Experiment(config), tmp_path / "seed_0", 0, 0, alone / "seed_0")
    assert_same_runs(tmp_path, alone, seeds=(0,))


def test_features_are_kept_of_a_frozen_backbone_alone(small_config):
    for changes in (
        {"choices.batch_norm": True},
        {"choices.trainable": ".*"},
        {"choices.trainable": "head/.*|backbone/.*"},
    ):
        config = small_config("otrw_global")
        config.stage2.otrw_global.update_from_flattened_dict(changes)
        experiment = Experiment(config)
        with pytest.raises(ValueError, match="feature_copies keeps the features of a frozen"):
            prepared = experiment.prepare(0)
            experiment.program(prepared).check(prepared)


def test_a_batch_that_does_not_split_is_told(small_config):
    config = small_config("otrw_global")
    config.devices = 3
    with pytest.raises(ValueError, match="stage1: a batch of 32 does not split evenly over 3 dev"):
        experiment = Experiment(config)
        experiment.program(experiment.prepare(0)).loops(0)
