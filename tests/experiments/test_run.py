import contextlib
import copy
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments.experiment import Experiment, stage_ends
from experiments.reporting import Reporter
from experiments.run import restore, train
from experiments.rundir import (
    HOW,
    ConfigMismatchError,
    RunningError,
    alone_in,
    best_record,
    claim,
    flatten,
    three_results,
)
from otrw_jax.checkpoints import CheckpointError, Checkpoints, read_json
from otrw_jax.model import predict

pytestmark = pytest.mark.usefixtures("cached")

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
METRICS = {
    "error",
    "balanced_accuracy",
    "many_accuracy",
    "medium_accuracy",
    "few_accuracy",
    "ece",
}


class Interrupted(Exception):
    """Stands for a kill."""


def with_fields(experiment, **fields):
    """The experiment under a config that differs; what is compiled is shared."""
    other = copy.copy(experiment)
    other.config = copy.deepcopy(experiment.config)
    with other.config.unlocked():
        other.config.update_from_flattened_dict(fields)
    return other


def history_of(workdir, number=None):
    """The records of a run's epochs, without the seconds that they took."""
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        records = checkpoints.record(number)["history"]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def lines_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


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
    stage = experiment.loops(prepared.split.counts)[-1].stage
    found = experiment.evaluations(stage, state.variables, prepared)
    assert {"epoch": 5, **found["test"]} == results["last"]
    inputs = experiment.preprocessing.evaluate(prepared.test.inputs)
    predictions = np.argmax(predict(experiment.model, state.variables, inputs), axis=1)
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


@contextlib.contextmanager
def nothing_compiled():
    """Asserts that no program is compiled, nor taken from the folder of compiled ones."""
    compiled = []

    def listen(event, seconds, **kwargs):
        del seconds, kwargs
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
        assert compiled == []
        jax.jit(lambda x: x + 12345)(1.0)  # The listener does hear.
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_another_seed_is_another_run_and_compiles_nothing(whole_run, experiment, tmp_path):
    with nothing_compiled():
        results = train(experiment, tmp_path, 1, 1)
    assert results != whole_run[1]
    there, here = (read_json(path / "run.json") for path in (whole_run[0], tmp_path))
    assert there["fingerprint"] != here["fingerprint"]


def interrupt(monkeypatch, owner, name, number_of, at):
    """Makes a method raise at an epoch's number."""
    method = getattr(owner, name)

    def interrupted(self, *args, **kwargs):
        if number_of(args) == at:
            raise Interrupted
        return method(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize(
    ("where", "at", "every"),
    [
        ("before saving", 1, 1),
        ("after saving", 2, 1),
        ("before saving", 3, 1),
        ("after saving", 3, 1),
        ("after saving", 4, 1),
        ("before saving", 5, 1),
        ("after saving", 5, 1),
        ("after saving", 2, 3),
        ("after saving", 4, 3),
    ],
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    where, at, every, whole_run, experiment, final_state, assert_same_bits, tmp_path, monkeypatch
):
    workdir, results = whole_run
    other = with_fields(experiment, checkpoint_every=every)
    with monkeypatch.context() as patch:
        if where == "before saving":
            interrupt(patch, Checkpoints, "save", lambda args: args[0], at)
        else:
            interrupt(patch, Reporter, "epoch", lambda args: args[0]["number"], at)
        with pytest.raises(Interrupted):
            train(other, tmp_path, 0, 0)
    assert not (tmp_path / "results.json").exists()

    trained = []
    with monkeypatch.context() as patch:
        report = Reporter.epoch
        patch.setattr(
            Reporter,
            "epoch",
            lambda self, record: (trained.append(record["number"]), report(self, record)),
        )
        assert train(other, tmp_path, 0, 0) == results
    # The last save before the interruption: what was in it is not trained again.
    ends = {3, 5}
    saved = [n for n in range(1, 6) if n in ends or (n - (3 if n > 3 else 0)) % every == 0]
    done = max((n for n in saved if n < at or (n == at and where == "after saving")), default=0)
    assert trained == list(range(done + 1, 6))
    assert_same_bits(final_state(experiment, tmp_path), final_state(experiment, workdir))
    assert history_of(tmp_path) == history_of(workdir)
    assert [r["number"] for r in lines_of(tmp_path)] == [1, 2, 3, 4, 5]


def test_going_on_compiles_no_other_programs(whole_run, small_config, tmp_path, monkeypatch):
    experiment = Experiment(small_config("otrw_paper"))
    train(experiment, tmp_path / "whole", 0, 0)
    with monkeypatch.context() as patch:
        interrupt(patch, Reporter, "epoch", lambda args: args[0]["number"], 2)
        with pytest.raises(Interrupted):
            train(experiment, tmp_path / "run", 0, 0)
    with nothing_compiled():
        assert train(experiment, tmp_path / "run", 0, 0) == whole_run[1]


def test_a_killed_run_goes_on_bit_for_bit(
    small_config, data_dir, cache_dir, final_state, assert_same_bits, tmp_path
):
    epochs = {"stage1": 12, "stage2": 12}
    config = small_config("otrw_paper")
    config.stage1.epochs = epochs["stage1"]
    config.stage2.otrw_paper.epochs = epochs["stage2"]
    command = [
        *(sys.executable, "-m", "experiments.train"),
        "--config=experiments/configs/digits.py:recipe=otrw_paper",
        f"--config.stage1.epochs={epochs['stage1']}",
        f"--config.stage2.otrw_paper.epochs={epochs['stage2']}",
        f"--config.data.data_dir={data_dir}",
    ]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(jax.device_count()),
        "JAX_COMPILATION_CACHE_DIR": str(cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    experiment = Experiment(config)
    whole = train(experiment, tmp_path / "whole", 0, 0)

    rng = random.Random(3)
    wanted, pause = rng.randrange(2, 20), rng.uniform(0, 0.2)
    workdir = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        names = [path.name for path in (workdir / "checkpoints").glob("*")]
        if max((int(name) for name in names if name.isdigit()), default=0) >= wanted:
            break
        time.sleep(0.005)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    error = process.communicate()[1].decode()
    assert process.returncode == -signal.SIGKILL, error
    assert not (workdir / "results.json").exists()
    done = len(history_of(workdir))
    assert wanted <= done < 24

    result = subprocess.run(
        [*command, f"--workdir={workdir}"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert f"epoch {done + 1}:" in result.stdout and f"epoch {done}:" not in result.stdout
    last = next(x for x in result.stdout.splitlines() if x.startswith("last epoch: "))
    assert f"error {whole['last']['error']:.2f}" in last
    assert read_json(workdir / "results.json") == whole
    assert_same_bits(final_state(experiment, workdir), final_state(experiment, tmp_path / "whole"))
    assert history_of(workdir) == history_of(tmp_path / "whole")


def test_two_processes_do_not_train_in_one_directory(experiment, tmp_path):
    with alone_in(tmp_path), pytest.raises(RunningError, match="another process is training in"):
        train(experiment, tmp_path, seed=0, subset_seed=0)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with alone_in(tmp_path):  # Free again.
        pass


def test_a_directory_refuses_another_config_and_names_what_differs(whole_run, experiment):
    workdir, results = whole_run
    other = with_fields(experiment, **{"stage1.batch_size": 16, "evaluate_every": 2})
    with pytest.raises(ConfigMismatchError) as caught:
        train(other, workdir, 0, 1)
    message = str(caught.value)
    assert f"{workdir} holds a run of another config" in message
    assert "stage1.batch_size is 32 there and 16 here" in message
    assert "evaluate_every is 1 there and 2 here" in message
    assert "subset_seed is 0 there and 1 here" in message
    assert message.count(" there and ") == 3
    assert read_json(workdir / "config.json")["stage1"]["batch_size"] == 32
    assert read_json(workdir / "results.json") == results


def test_fields_that_come_or_go_are_named(small_config, tmp_path):
    claim(tmp_path, small_config("ce"))
    config = small_config("ce")
    with config.unlocked():
        del config.shots
        config.news = (1, 2)
    with pytest.raises(ConfigMismatchError) as caught:
        claim(tmp_path, config)
    assert "news is 'absent' there and [1, 2] here" in str(caught.value)
    assert "shots.few is 20 there and 'absent' here" in str(caught.value)


def test_how_a_run_is_done_may_differ(whole_run, experiment, tmp_path):
    values = {
        "data.data_dir": "elsewhere",
        "data.manual_dir": "elsewhere",
        "checkpoint_every": 3,
        "keep_checkpoints": 7,
        "steps_per_call": 4,
        "devices": 2,
        "seeds": (1, 2),
        "seeds_at_once": 1,
        "stage1_from": "somewhere",
    }
    assert set(values) == set(HOW)
    claim(tmp_path, experiment.config)
    for name, value in values.items():
        claim(tmp_path, with_fields(experiment, **{name: value}).config)
    workdir, results = whole_run
    before = experiment.config
    try:
        other = with_fields(experiment, checkpoint_every=2, keep_checkpoints=1, steps_per_call=3)
        assert train(other, workdir, 0, 0) == results
    finally:
        claim(workdir, before)


@pytest.fixture(scope="module")
def first_stage(small_config, tmp_path_factory):
    """A run of cross-entropy alone."""
    workdir = tmp_path_factory.mktemp("runs") / "ce"
    train(Experiment(small_config("ce")), workdir, 0, 0)
    return workdir


def test_a_first_stage_taken_over_gives_the_same_bits(
    whole_run, first_stage, experiment, final_state, assert_same_bits, tmp_path
):
    workdir, results = whole_run
    assert train(experiment, tmp_path, 0, 0, first_stage) == results
    for number in (3, 5):
        assert_same_bits(
            final_state(experiment, tmp_path, number), final_state(experiment, workdir, number)
        )
    assert history_of(tmp_path) == history_of(workdir)
    assert not (tmp_path / "checkpoints" / "2").exists()
    # A finished run does not need its source again.
    assert train(experiment, tmp_path, 0, 0, tmp_path / "gone") == results


def test_another_first_stage_is_refused(first_stage, experiment, tmp_path):
    other = with_fields(experiment, **{"stage1.optimizer.learning_rate": 0.01})
    with pytest.raises(ConfigMismatchError) as caught:
        train(other, tmp_path / "a", 1, 0, first_stage)
    assert f"{first_stage} differs in seed, stage1.optimizer.learning_rate;" in str(caught.value)
    with pytest.raises(ConfigMismatchError, match="differs in subset_seed;"):
        train(experiment, tmp_path / "b", 0, 1, first_stage)


def test_a_missing_first_stage_is_told_and_can_be_mended(
    whole_run, first_stage, experiment, tmp_path
):
    with pytest.raises(FileNotFoundError, match=r"stage1_from: .*nowhere holds no run; train it"):
        train(experiment, tmp_path / "run", 0, 0, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    assert train(experiment, tmp_path / "run", 0, 0, first_stage) == whole_run[1]


def test_an_unfinished_first_stage_is_told(small_config, experiment, tmp_path, monkeypatch):
    source = tmp_path / "source"
    with monkeypatch.context() as patch:
        interrupt(patch, Checkpoints, "save", lambda args: args[0], 3)
        with pytest.raises(Interrupted):
            train(experiment, source, 0, 0)
    with pytest.raises(CheckpointError, match=r"source.* no checkpoint 3; there are \[1, 2\]"):
        train(experiment, tmp_path / "run", 0, 0, source)


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
    other = with_fields(experiment, **{"shots.few": 1})
    state = final_state(experiment, whole_run[0])
    prepared = experiment.prepare(0)
    stage = other.loops(prepared.split.counts)[-1].stage
    found = other.evaluations(stage, state.variables, prepared)
    assert set(found["test"]) == METRICS - {"few_accuracy"}


def test_evaluations_may_be_rare(experiment, tmp_path):
    other = with_fields(experiment, evaluate_every=2)
    train(other, tmp_path, 0, 0)
    # Every second epoch of a stage, and the last of each.
    assert [r["number"] for r in lines_of(tmp_path) if "test" in r] == [2, 3, 5]


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
    assert stage_ends(experiment.loops(experiment.prepare(0).split.counts)) == (3, 5)
    evaluations = Experiment.evaluations

    def graded(self, stage, variables, prepared):
        found = evaluations(self, stage, variables, prepared)
        found["held_out"]["balanced_accuracy"] = next(best)
        return found

    monkeypatch.setattr(Experiment, "evaluations", graded)
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
    (tmp_path / "seed_0").mkdir()
    (tmp_path / "seed_1").mkdir()
    with pytest.raises(FileNotFoundError, match=r"several seeds, choose one: seed_0, seed_1"):
        restore(tmp_path)
