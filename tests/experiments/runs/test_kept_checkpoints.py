"""Which epochs a run's results and checkpoints are of, and how they are restored."""

import numpy as np
import pytest

from experiments.program.scores import scores
from experiments.runs import training
from experiments.runs.journal import Reporter
from experiments.runs.outcomes import best_record, three_results
from experiments.runs.restoring import restore
from experiments.runs.training import train
from otrw_jax.training.checkpoints import CheckpointError, Checkpoints
from tests.experiments.shared import with_fields


def record(number, stage, **parts):
    return {
        "number": number,
        "stage": stage,
        **{part: {"balanced_accuracy": value, "error": -value} for part, value in parts.items()},
    }


def test_the_three_results_are_of_the_last_stage():
    history = [
        record(1, "stage1", test=99.0, held_out=99.0),
        record(2, "stage2", test=50.0, held_out=70.0),
        record(3, "stage2"),
        record(4, "stage2", test=80.0, held_out=60.0),
        record(5, "stage2", test=80.0, held_out=70.0),
        record(6, "stage2", test=40.0, held_out=10.0),
    ]
    results = three_results(history)
    assert {name: result["epoch"] for name, result in results.items()} == {
        "last": 6,
        "best_held_out": 2,
        "best_test": 4,
    }
    # The metrics are those of the test set, however the epoch was chosen.
    assert results["best_held_out"]["error"] == -50.0
    assert best_record(history[:1], "held_out")["number"] == 1
    assert best_record([record(1, "stage1", test=1.0)], "held_out") is None


def test_the_best_checkpoint_is_kept(whole_run):
    workdir, results = whole_run
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        kept = checkpoints.steps()
    assert {3, 4, 5, results["best_held_out"]["epoch"]} == set(kept)


def test_the_best_of_many_epochs_is_kept(experiment, tmp_path, monkeypatch):
    best = iter([40.0, 90.0, 50.0, 60.0, 50.0])
    assert experiment.program(experiment.prepare(0)).ends == (3, 5)

    def graded(*given):
        found = scores(*given)
        found["held_out"]["balanced_accuracy"] = next(best)
        return found

    monkeypatch.setattr(training, "scores", graded)
    kept = []
    report = Reporter.epoch

    def look(self, record):
        kept.append(sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()))
        return report(self, record)

    monkeypatch.setattr(Reporter, "epoch", look)
    results = train(with_fields(experiment, keep_checkpoints=1), tmp_path, 0, 0)
    assert kept == [[1], [2], [2, 3], [3, 4], [3, 4, 5]]
    assert results["best_held_out"]["epoch"] == 4


@pytest.mark.parametrize(
    ("which", "number", "stage"),
    [("last", 5, "stage2"), ("stage1", 3, "stage1"), ("stage2", 5, "stage2"), ("4", 4, "stage2")],
)
def test_restoring_a_checkpoint(
    which, number, stage, whole_run, experiment, final_state, assert_same_bits
):
    restored = restore(whole_run[0], which)
    assert (restored.number, restored.stage.name) == (number, stage)
    assert_same_bits(restored.state, final_state(experiment, whole_run[0], number))
    assert restored.prepared.split.fingerprint == experiment.prepare(0).split.fingerprint


def test_logits_of_a_restored_run_are_those_that_were_evaluated(whole_run):
    workdir, results = whole_run
    restored = restore(workdir)
    test = restored.prepared.test
    classes = np.asarray(restored.logits(test.inputs)).argmax(-1)
    error = 100 * np.mean(classes != np.asarray(test.labels))
    assert error == pytest.approx(results["last"]["error"], abs=1e-3)


def test_inputs_that_are_not_as_stored_are_told(whole_run):
    restored = restore(whole_run[0])
    images = np.asarray(restored.prepared.test.inputs)[:3]
    for wrong in (images / 16, images[0], images[:, :7], images[..., 0]):
        with pytest.raises(ValueError, match=r"this run's are stored as uint8 of shape .*; give"):
            restored.logits(wrong)
    np.testing.assert_array_equal(restored.logits(images.astype(int)), restored.logits(images))


def test_restoring_what_is_not_there(whole_run, tmp_path):
    workdir, _ = whole_run
    for number in ("0", "99"):
        message = rf"no checkpoint {number}; there are \[3, 4, 5\]"
        with pytest.raises(CheckpointError, match=message):
            restore(workdir, number)
    with pytest.raises(ValueError, match=r"'first' is not known; choose last, stage1, stage2,"):
        restore(workdir, "first")
    with pytest.raises(FileNotFoundError, match=r"holds no run; train first"):
        restore(tmp_path)
    for name in ("seed_0", "seed_1", "ce/seed_0"):
        (tmp_path / name / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"several, choose one: ce/seed_0, seed_0, seed_1"):
        restore(tmp_path)
