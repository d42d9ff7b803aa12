"""Two processes on this machine train one run, are killed, and go on."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

from experiments.cli import processes
from experiments.program.experiment import Experiment
from experiments.runs.training import train

pytestmark = pytest.mark.usefixtures("rank_promotion")

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
EPOCHS = {"stage1": 4, "stage2": 2}


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.fixture
def start(data_dir, tmp_path):
    """Starts two processes with two devices each on a run directory; kills what is left."""
    started = []

    def begin(workdir):
        port = free_port()
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
        }
        for process in range(2):
            command = [
                *(sys.executable, "-m", "experiments.train"),
                "--config=experiments/configs/digits.py:recipe=otrw_global",
                f"--config.stage1.epochs={EPOCHS['stage1']}",
                f"--config.stage2.otrw_global.epochs={EPOCHS['stage2']}",
                f"--config.data.data_dir={data_dir}",
                f"--workdir={workdir}",
                f"--coordinator=localhost:{port}",
                "--num_processes=2",
                "--heartbeat_seconds=10",
                f"--process_id={process}",
            ]
            log = (tmp_path / f"log{len(started)}").open("w+")
            started.append(
                (
                    subprocess.Popen(
                        command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log
                    ),
                    log,
                )
            )
        return started[-2:]

    yield begin
    for process, log in started:
        process.kill()
        process.wait()
        log.close()


def text_of(log):
    log.seek(0)
    return log.read()


def test_two_processes_equal_one_and_survive_a_kill(start, small_config, final_state, tmp_path):
    config = small_config("otrw_global")
    config.stage1.epochs, config.stage2.otrw_global.epochs = EPOCHS.values()
    experiment = Experiment(config)
    whole = train(experiment, tmp_path / "one", 0, 0)

    workdir = tmp_path / "two"
    (first, first_log), (second, second_log) = start(workdir)
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and first.poll() is None and second.poll() is None:
        names = [path.name for path in (workdir / "checkpoints").glob("*")]
        if max((int(name) for name in names if name.isdigit()), default=0) >= 2:
            break
        time.sleep(0.01)
    assert second.poll() is None, text_of(second_log)
    second.send_signal(signal.SIGKILL)
    # The first cannot go on alone, and does not pretend to.
    assert first.wait(120) != 0, text_of(first_log)
    assert not (workdir / "results.json").exists()

    for process, log in start(workdir):
        assert process.wait(150) == 0, text_of(log)
    assert json.loads((workdir / "results.json").read_text())["last"] == pytest.approx(
        whole["last"], abs=0.6
    )
    records = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (workdir, tmp_path / "one")
    ]
    assert [r["number"] for r in records[0]] == list(range(1, 7))
    for found, wanted in zip(*records, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-3)
    states = [final_state(experiment, folder) for folder in (workdir, tmp_path / "one")]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


@pytest.fixture
def joined(monkeypatch):
    """From flags and environment to what jax is asked to join."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: calls.append((a, k)))

    def join(coordinator=None, count=None, number=None, **environment):
        calls.clear()
        values = {"COORDINATOR": coordinator, "NUM_PROCESSES": count, "PROCESS_ID": number}
        for name, value in (values | {"HEARTBEAT": 100}).items():
            monkeypatch.setattr(processes, name, types.SimpleNamespace(value=value))
        for name in ("SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        processes.join()
        return [arguments for arguments, _ in calls]

    return join


def test_which_processes_are_joined(joined):
    assert joined() == []
    assert joined("here:1", 2, 1) == [("here:1", 2, 1)]
    assert joined("auto") == [()]
    assert joined(SLURM_STEP_NUM_TASKS="4") == [()]
    assert joined(SLURM_STEP_NUM_TASKS="1") == []
    assert joined(TPU_WORKER_HOSTNAMES="a,b") == [()]
    assert joined(TPU_WORKER_HOSTNAMES="a") == []
    # What is given goes before what is found.
    assert joined("here:1", 2, 0, SLURM_STEP_NUM_TASKS="4") == [("here:1", 2, 0)]


@pytest.mark.parametrize("given", [("here:1", 2, None), ("here:1", None, 0), (None, 2, 0)])
def test_flags_that_are_missing_are_named(joined, given):
    with pytest.raises(ValueError, match="need all of --coordinator=host:port, --num_processes"):
        joined(*given)


def test_a_process_number_out_of_range(joined):
    with pytest.raises(ValueError, match="--process_id=2 of 2 processes; they are numbered from"):
        joined("here:1", 2, 2)
