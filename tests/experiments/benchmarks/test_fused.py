"""Fused kernels are measured in processes of their own, with them and without; no times."""

import itertools
import json
import subprocess
import types

import pytest

from experiments.benchmarks import fused
from experiments.benchmarks.timing import Effort
from experiments.cli.compilation import FUSED, FUSION

SECONDS = {"plain": (0.4, 0.9, 0.5), "fused": (0.2, 0.25, 0.3)}


@pytest.fixture
def processes(monkeypatch):
    """The commands and XLA's options of the processes, which print `SECONDS` in turn."""
    started = []

    def run(command, env, **options):
        started.append((tuple(command[-2:]), env["XLA_FLAGS"]))
        batch_size, kernels = command[-2:]
        turn = [command for command, _ in started].count((batch_size, kernels)) - 1
        found = {"seconds": SECONDS[kernels][turn], "compilation": 8.0 + turn}
        return subprocess.CompletedProcess(command, 0, f"a line\n{json.dumps(found)}\n", "")

    monkeypatch.setattr(fused.subprocess, "run", run)
    return started


def test_medians_of_processes_that_take_turns(processes, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    records = fused.run(Effort(largest=True))
    sizes = [(record["batch_size"], record["kernels"]) for record in records]
    assert sizes == [(16, "plain"), (16, "fused"), (128, "plain"), (128, "fused")]
    assert [kernels for (_, kernels), _ in processes] == 6 * ["plain", "fused"]
    assert [record["seconds"] for record in records] == [0.5, 0.25, 0.5, 0.25]
    assert {record["compilation"] for record in records} == {9.0}
    (row,) = [line for line in fused.markdown(records).splitlines() if line.startswith("| 128")]
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells == ["500", "250", "2.00", "256", "512", "9.00", "9.00"]


def test_a_plain_process_is_plain_where_this_one_is_fused(processes, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--xla_cpu_enable_fast_math=false {FUSED}")
    assert len(fused.run(Effort(largest=False))) == 2
    assert {flags for _, flags in processes} == {"--xla_cpu_enable_fast_math=false"}
    assert FUSION in FUSED


def test_a_process_that_fails_says_why(monkeypatch):
    failed = subprocess.CompletedProcess((), 1, "", "no such kernels\n")
    monkeypatch.setattr(fused.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match=r"16 fused ended: no such kernels\."):
        fused._measured(16, "fused")


@pytest.mark.parametrize("kernels", fused.KERNELS)
def test_compilation_is_apart_from_the_steps(monkeypatch, kernels):
    """Kernels are chosen before anything is compiled; the median step counts."""
    done = []

    def ours(*arguments):
        done.append("made")
        return lambda: done.append("step")

    ticks = itertools.accumulate([0.0, 3.0, 1.0, 2.0, 9.0, 2.0])
    monkeypatch.setattr(fused, "time", types.SimpleNamespace(perf_counter=ticks.__next__))
    monkeypatch.setattr(fused, "ours", ours)
    monkeypatch.setattr(fused, "fuse", lambda: done.append("fused"))
    monkeypatch.setattr(fused.jax.config, "update", lambda *_: None)
    assert fused._measure(128, kernels) == {"seconds": 2.0, "compilation": 3.0}
    first = ["fused"] if kernels == "fused" else []
    assert done == [*first, "made", *(1 + fused.STEPS) * ["step"]]


def test_there_is_none_but_on_cpus(processes, monkeypatch):
    monkeypatch.setattr(fused.jax, "default_backend", lambda: "gpu")
    assert fused.run(Effort()) == [] and not processes
    assert fused.markdown([]).endswith("Not measured: XLA has them on CPUs alone.")
