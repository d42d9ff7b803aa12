"""Where the time of an epoch goes: a trace of each stage of a config, and its longest operations.

python -m experiments.tracing --config=experiments/configs/digits.py:recipe=otrw_paper \\
    --workdir=runs/trace

Each stage is run for an epoch, which compiles it, and then for one that is traced. The traces are
for Perfetto (https://ui.perfetto.dev) and TensorBoard.
"""

import collections
import gzip
import json
import pathlib
import time

import jax
from ml_collections import ConfigDict

from experiments.cli import CONFIG, WORKDIR, run_app
from experiments.configs.overrides import run_config
from experiments.documents.markdown import table
from experiments.program.experiment import Experiment
from experiments.runs.provenance import device_name

SHOWN = 12


def main(argv: list[str]) -> None:
    """Traces the config's stages."""
    del argv
    trace_stages(run_config(CONFIG), pathlib.Path(WORKDIR.value))


def trace_stages(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Traces an epoch of each stage, and prints its longest operations.

    Args:
        config: what is run.
        workdir: folder of the traces, a folder a stage in it.
    """
    experiment = Experiment(config)
    seed = experiment.config.seed
    prepared = experiment.prepare(experiment.config.subset_seed)
    program = experiment.program(prepared)
    variables = program.initial_variables(seed)
    for index, loop in enumerate(program.loops(0)):
        data = program.data_of(loop.stage, seed, prepared, variables)
        key = program.stage_key(seed, index)
        state, _ = loop.epoch(loop.start(key, variables, data), data, key)
        folder = workdir / loop.stage.name
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            clock = time.perf_counter()
            state, _ = loop.epoch(loop.refresh(state, data, key), data, key)
            seconds = time.perf_counter() - clock
        variables = state.variables
        (trace,) = sorted(folder.glob("**/perfetto_trace.json.gz"))[-1:]
        print(
            f"{loop.stage.name} on {device_name()}: {seconds:.2f} s an epoch under trace: {trace}"
        )
        print(longest(trace))


def longest(trace: pathlib.Path) -> str:
    """The operations that take longest in all, as a table.

    Args:
        trace: as `jax.profiler.trace` writes it for Perfetto. Of a device's own operations, where
            it has any, else of the host's.
    """
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    devices = {pid for pid, name in names.items() if name.startswith("/device:")}
    total: collections.Counter[str] = collections.Counter()
    count: collections.Counter[str] = collections.Counter()
    for event in events:
        if event.get("ph") != "X" or event["name"].startswith("$"):  # A frame of Python.
            continue
        if not devices or event["pid"] in devices:
            total[event["name"]] += event["dur"]
            count[event["name"]] += 1
    rows = [
        [f"`{name[:60]}`", f"{duration / 1e3:.1f}", str(count[name])]
        for name, duration in total.most_common(SHOWN)
    ]
    return table(["operation", "ms in all", "times"], rows)


if __name__ == "__main__":
    run_app(main, "config", "workdir", keep_compiled=False)
