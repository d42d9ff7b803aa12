"""The script that evaluates: which checkpoint, its table of weights, what it says it cannot."""

import csv
import json

import jax
import numpy as np
import pytest

from experiments import evaluate
from experiments.program.compiled import Program
from experiments.program.experiment import Experiment
from experiments.runs.restoring import restore
from experiments.runs.training import train
from otrw_jax.data.sources import load_dataset
from otrw_jax.files import read_json
from otrw_jax.training.checkpoints import CheckpointError
from tests.experiments.shared import is_picture

pytestmark = [
    # By ml_collections, which loads the config file.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]


def test_of_many_classes_the_counts_that_are_not_zero_are_written(monkeypatch):
    confusion = np.array([[4, 0, 1], [0, 0, 0], [0, 2, 3]])
    assert evaluate.listed(confusion) == {"confusion": confusion.tolist()}
    monkeypatch.setattr(evaluate, "MOST", 2)
    wanted = [[0, 0, 4], [0, 2, 1], [2, 1, 2], [2, 2, 3]]
    assert evaluate.listed(confusion) == {"confusion_counts": wanted}


def test_evaluating_a_run(run_script, whole_run, experiment, data_dir, capsys, tmp_path):
    workdir, results = whole_run
    table = tmp_path / "weights.csv"
    assert run_script(evaluate, f"--workdir={workdir}", f"--weights={table}") is None

    evaluation = read_json(workdir / "evaluation.json")
    assert (evaluation["checkpoint"], evaluation["stage"]) == (5, "stage2")
    assert {"epoch": 5, **evaluation["test"]} == pytest.approx(results["last"], abs=1e-4)
    assert evaluation["fingerprint"] == read_json(workdir / "run.json")["fingerprint"]
    confusion = np.array(evaluation["confusion"])
    np.testing.assert_array_equal(confusion.sum(axis=1), [40] * 10)
    accuracies = 100 * np.diag(confusion) / 40
    assert evaluation["per_class_accuracy"] == pytest.approx(accuracies, rel=1e-5)
    assert evaluation["test"]["error"] == pytest.approx(100 - accuracies.mean(), rel=1e-5)
    assert set(evaluation["held_out"]) == set(evaluation["test"])
    assert is_picture(workdir / "confusion.png")
    out = capsys.readouterr().out
    assert f"epoch 5 (stage2) of {workdir}" in out
    assert any(
        line.split() == ["error", f"{results['last']['error']:.2f}", "%"]
        for line in out.splitlines()
    )

    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "label", "weight"]
    ids, labels = (np.array([int(row[name]) for row in rows]) for name in ("id", "label"))
    # Rows of the data set's training part, those of this run's subset.
    np.testing.assert_array_equal(ids, experiment.prepare(0).split.train)
    np.testing.assert_array_equal(labels, load_dataset("digits", data_dir).train_labels[ids])
    state = restore(workdir).state
    np.testing.assert_array_equal(
        np.array([row["weight"] for row in rows], np.float32), state.weights.values
    )


def test_what_is_evaluated_is_evaluated_once(run_script, whole_run, monkeypatch):
    workdir, _ = whole_run
    made, sizes = Program._evaluator, []

    def counting(self, *arguments):
        evaluate = made(self, *arguments)

        def counted(variables, examples):
            sizes.append(len(examples.labels))
            return evaluate(variables, examples)

        return counted

    monkeypatch.setattr(Program, "_evaluator", counting)
    assert run_script(evaluate, f"--workdir={workdir}") is None
    assert sizes == [400, 50]  # The test set and the held-out part.


@pytest.mark.parametrize(
    ("checkpoint", "number", "stage"), [("stage1", 3, "stage1"), ("4", 4, "stage2")]
)
def test_evaluating_another_checkpoint(run_script, whole_run, checkpoint, number, stage):
    workdir, _ = whole_run
    assert run_script(evaluate, f"--workdir={workdir}", f"--checkpoint={checkpoint}") is None
    evaluation = read_json(workdir / "evaluation.json")
    assert (evaluation["checkpoint"], evaluation["stage"]) == (number, stage)
    records = (workdir / "metrics.jsonl").read_text().splitlines()
    found = json.loads(records[number - 1])["test"]
    assert evaluation["test"] == pytest.approx(found, abs=1e-4)


def test_the_data_may_have_moved(run_script, small_config, data_dir, tmp_path):
    config = small_config("ce")
    config.stage1.epochs = 1
    workdir = tmp_path / "run"
    train(Experiment(config), workdir, 0, 0)
    path = workdir / "config.json"
    path.write_text(path.read_text().replace(str(data_dir), str(tmp_path / "file")))
    (tmp_path / "file").touch()
    assert "file" in run_script(evaluate, f"--workdir={workdir}")
    assert run_script(evaluate, f"--workdir={workdir}", f"--data_dir={data_dir}") is None


def test_what_cannot_be_evaluated_is_told_in_one_line(run_script, whole_run, tmp_path):
    workdir, _ = whole_run
    for checkpoint, message in {
        "best": "ValueError: checkpoint 'best' is not known; choose last, stage1, stage2, best_",
        "77": f"CheckpointError: {workdir / 'checkpoints'} holds no checkpoint 77; there are [3, 4",
    }.items():
        end = run_script(evaluate, f"--workdir={workdir}", f"--checkpoint={checkpoint}")
        assert end.startswith(message) and "\n" not in end
    end = run_script(
        evaluate,
        *(f"--workdir={workdir}", "--checkpoint=stage1", f"--weights={tmp_path / 'w.csv'}"),
    )
    assert end.startswith("ValueError: stage1 of otrw_paper learns no weights")
    assert not (tmp_path / "w.csv").exists()
    end = run_script(evaluate, f"--workdir={tmp_path / 'none'}")
    assert end == f"FileNotFoundError: {tmp_path / 'none'} holds no run; train first."
    assert not (tmp_path / "none").exists()
    with pytest.raises(CheckpointError):
        run_script(evaluate, f"--workdir={workdir}", "--checkpoint=77", "--debug")


def test_a_network_of_nan_is_told_in_one_line(run_script, whole_run, monkeypatch):
    workdir, _ = whole_run
    end = evaluate.restore(workdir)
    variables = jax.tree.map(lambda x: x * np.nan, end.state.variables)
    spoilt = end._replace(state=end.state.replace(variables=variables))
    monkeypatch.setattr(evaluate, "restore", lambda *given: spoilt)
    before = (workdir / "evaluation.json").exists()
    ended = run_script(evaluate, f"--workdir={workdir}")
    assert ended.startswith("LogitsNotFiniteError: evaluation: not all logits of the ")
    assert (workdir / "evaluation.json").exists() == before


def test_a_missing_flag_is_told(run_script):
    assert "--workdir" in run_script(evaluate)
    end = run_script(evaluate, "--workdirr=x")
    assert "'workdirr'" in end and "workdir" in end and "\n" not in end
