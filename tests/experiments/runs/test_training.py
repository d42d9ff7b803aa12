"""What a run leaves behind, and that it is repeated bit for bit."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.program.experiment import Experiment
from experiments.program.scores import scores, statistics, summary
from experiments.runs import training
from experiments.runs.identity import flatten
from experiments.runs.journal import Reporter
from experiments.runs.restoring import restore
from experiments.runs.training import train
from otrw_jax.files import read_json
from otrw_jax.models.model import predict
from otrw_jax.training.checkpoints import Checkpoints
from otrw_jax.training.loop import TrainingDivergedError, run_stage
from tests.experiments.shared import history_of, lines_of, nothing_compiled, with_fields

METRICS = {
    "error",
    "balanced_accuracy",
    "many_accuracy",
    "medium_accuracy",
    "few_accuracy",
    "ece",
}


def test_a_run_directory_holds_the_whole_record(whole_run, experiment):
    workdir, results = whole_run
    config = read_json(workdir / "config.json")
    assert config["recipe"] == "otrw_paper"
    assert flatten(config) == flatten(
        {**experiment.config.to_dict(), "seed": 0, "subset_seed": 0, "stage1_from": ""}
    )

    run = read_json(workdir / "run.json")
    split = experiment.prepare(0).split
    assert run["fingerprint"] == split.fingerprint
    assert run["counts"] == split.counts.tolist()
    assert (run["meta"], run["held_out"], run["test"]) == (50, 50, 400)
    # 64 inputs, layers of 128 and 64, 10 classes, each with its biases.
    assert run["parameters"] == 65 * 128 + 129 * 64 + 65 * 10
    assert run["versions"]["jax"] == jax.__version__
    assert {"python", "otrw_jax", "flax", "optax", "ott-jax", "orbax-checkpoint"} <= set(
        run["versions"]
    )
    assert run["device"].startswith("cpu")

    records = lines_of(workdir)
    assert [r["number"] for r in records] == [1, 2, 3, 4, 5]
    assert [r["stage"] for r in records] == ["stage1"] * 3 + ["stage2"] * 2
    for record in records:
        assert np.isfinite(record["loss"]) and record["seconds"] > 0
        assert 0 <= record["train_error"] <= 100
        assert set(record["test"]) == set(record["held_out"]) == METRICS
        assert ("ot_loss" in record) == (record["stage"] == "stage2")
    assert records[2]["loss"] < records[0]["loss"]
    assert any((workdir / "tensorboard").glob("events.out.tfevents.*"))

    assert read_json(workdir / "results.json") == results
    assert set(results) == {"last", "best_held_out", "best_test"}
    assert all(set(result) == {"epoch", *METRICS} for result in results.values())
    assert results["last"] == {"epoch": 5, **records[-1]["test"]}
    assert [path.name for path in workdir.glob("*.tmp")] == []


def test_the_metrics_of_a_record_are_those_of_its_checkpoint(whole_run, experiment, final_state):
    workdir, results = whole_run
    state = final_state(experiment, workdir)
    prepared = experiment.prepare(0)
    program = experiment.program(prepared)
    found = scores(program, program.stages[-1], state.variables, prepared)
    assert {"epoch": 5, **found["test"]} == results["last"]
    inputs = program.preprocessing.evaluate(prepared.test.inputs)
    predictions = np.argmax(predict(program.model, state.variables, inputs), axis=1)
    wrong = np.asarray(predictions) != np.asarray(prepared.test.labels)
    assert results["last"]["error"] == pytest.approx(100 * wrong.mean(), rel=1e-5)


def test_a_second_call_does_nothing(whole_run, experiment, monkeypatch):
    workdir, results = whole_run
    kept = {path.name for path in (workdir / "checkpoints").iterdir()}
    records = lines_of(workdir)

    def untouched(*args, **kwargs):
        raise AssertionError("a finished run trains or saves")

    monkeypatch.setattr(Checkpoints, "save", untouched)
    monkeypatch.setattr(Reporter, "epoch", untouched)
    assert train(experiment, workdir, 0, 0) == results
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == kept
    assert lines_of(workdir) == records


def test_the_same_run_twice_is_the_same_bit_for_bit(
    whole_run, small_config, final_state, assert_same_bits, experiment, tmp_path
):
    workdir, results = whole_run
    again = Experiment(small_config("otrw_paper"))
    assert train(again, tmp_path, 0, 0) == results
    first, second = final_state(experiment, workdir), final_state(again, tmp_path)
    assert_same_bits(first, second)
    assert history_of(workdir) == history_of(tmp_path)
    # The weights have been learned, and momentum has been gathered: there was something to lose.
    assert np.ptp(first.weights.values) > 0
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(first.opt_state)) > 0


def test_another_seed_is_another_run_and_compiles_nothing(whole_run, experiment, tmp_path):
    train(experiment, tmp_path / "before", 0, 0)  # Another file's programs may be let go.
    with nothing_compiled():
        results = train(experiment, tmp_path / "other", 1, 1)
    assert results != whole_run[1]
    there, here = (read_json(path / "run.json") for path in (whole_run[0], tmp_path / "other"))
    assert there["fingerprint"] != here["fingerprint"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage2.otrw_paper.batch_size": 5000}, "stage2: the batch size is 5000 and the training"),
        ({"data.meta_per_class": 0}, "meta"),
        ({"stage1.epochs": 0}, r"stage1\.epochs is 0; it must be a whole number of 1 or more"),
        ({"stage2.otrw_paper.batch_size": -4}, r"stage2\.otrw_paper\.batch_size is -4"),
    ],
)
def test_what_is_wrong_with_a_stage_is_said_before_any_training(
    small_config, tmp_path, fields, message
):
    config = small_config("otrw_paper")
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=message):
        train(Experiment(config), tmp_path, 0, 0)
    assert not list(tmp_path.glob("checkpoints/*")) and not (tmp_path / "metrics.jsonl").exists()


def test_a_run_without_held_out_part(small_config, tmp_path):
    config = small_config("ce")
    config.data.held_out_per_class = 0
    results = train(Experiment(config), tmp_path, 0, 0)
    assert results["best_held_out"] is None
    assert json.loads((tmp_path / "results.json").read_text())["best_held_out"] is None
    assert read_json(tmp_path / "run.json")["held_out"] == 0
    assert all("held_out" not in record for record in lines_of(tmp_path))
    assert results["last"]["epoch"] == 3 and results["best_test"] is not None
    with pytest.raises(ValueError, match=r"'best_held_out' is not known; choose last, stage1, an"):
        restore(tmp_path, "best_held_out")


def test_an_empty_shot_group_has_no_entry(experiment, whole_run, final_state):
    state = final_state(experiment, whole_run[0])
    prepared = experiment.prepare(0)
    program = experiment.program(prepared)
    found = statistics(program, program.stages[-1], state.variables, prepared)
    shots = ConfigDict({"many": 100, "few": 1})
    assert set(summary(found["test"], prepared, shots)) == METRICS - {"few_accuracy"}


def test_evaluations_may_be_rare(experiment, tmp_path):
    other = with_fields(experiment, evaluate_every=2)
    train(other, tmp_path, 0, 0)
    # Every second epoch of a stage, and the last of each.
    assert [r["number"] for r in lines_of(tmp_path) if "test" in r] == [2, 3, 5]


@pytest.mark.parametrize(
    ("every", "said"),
    [(1, r"evaluation: not all logits of the \d+ examples are"), (9, "stage1: the network is not")],
)
def test_an_epoch_that_ends_in_a_network_of_nan_is_not_kept(
    experiment, tmp_path, monkeypatch, every, said
):
    """Its last step has spoilt the network, of which the losses before say nothing."""

    def spoilt(*args):
        for number, state, metrics in run_stage(*args):
            if number == 1:
                nan = jax.tree.map(lambda x: x * np.nan, state.variables["params"])
                state = state.replace(variables={**state.variables, "params": nan})
            yield number, state, metrics

    monkeypatch.setattr(training, "run_stage", spoilt)
    message = (
        rf"^{said} finite; take a smaller .* keeps the epochs up to 1: "
        r"repeat the command with a smaller --config\.stage1\.optimizer"
    )
    with pytest.raises(TrainingDivergedError, match=message):
        train(with_fields(experiment, evaluate_every=every), tmp_path, 0, 0)
    assert [record["number"] for record in lines_of(tmp_path)] == [1]
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [1]
