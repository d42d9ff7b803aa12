"""Runs that are interrupted, or begin with the first stage of another, end like whole ones."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import pytest

from experiments.program.experiment import Experiment
from experiments.runs.directory import ConfigMismatchError
from experiments.runs.journal import Reporter
from experiments.runs.training import train
from otrw_jax.files import read_json
from otrw_jax.training.checkpoints import CheckpointError, Checkpoints
from tests.experiments.shared import (
    Interrupted,
    history_of,
    interrupt,
    lines_of,
    nothing_compiled,
    with_fields,
)

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


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


def test_going_on_compiles_no_other_programs(
    whole_run, experiment, small_config, tmp_path, monkeypatch
):
    def interrupted(experiment, workdir):
        with monkeypatch.context() as patch:
            interrupt(patch, Reporter, "epoch", lambda args: args[0]["number"], 2)
            with pytest.raises(Interrupted):
                train(experiment, workdir, 0, 0)

    # Reading a checkpoint takes small programs of its own, which the process then has.
    interrupted(experiment, tmp_path / "before")
    train(experiment, tmp_path / "before", 0, 0)

    experiment = Experiment(small_config("otrw_paper"))
    train(experiment, tmp_path / "whole", 0, 0)
    interrupted(experiment, tmp_path / "run")
    with nothing_compiled():
        assert train(experiment, tmp_path / "run", 0, 0) == whole_run[1]


def test_a_killed_run_goes_on_bit_for_bit(
    small_config, data_dir, final_state, assert_same_bits, tmp_path
):
    epochs = {"stage1": 6, "stage2": 6}
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
    }
    experiment = Experiment(config)
    whole = train(experiment, tmp_path / "whole", 0, 0)

    rng = random.Random(3)
    wanted, pause = rng.randrange(2, 9), rng.uniform(0, 0.2)
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
    assert wanted <= done < 12

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
