"""From a command to its first line, and to a run's end with programs compiled or kept."""

import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from experiments.benchmarks.timing import Effort
from experiments.documents.markdown import number, table

CONFIG = "--config=experiments/configs/digits.py:recipe=otrw_paper"
IMPORTS: dict[str, tuple[str, ...]] = {
    "import jax": ("-c", "import jax"),
    "import otrw_jax": ("-c", "import otrw_jax"),
}
WRONG = ("-m", "experiments.train", CONFIG, "--wrkdir=runs")
HELP = ("train", "evaluate", "figures", "demo", "reproduce", "report")
EPOCHS = ("--config.stage1.epochs=2", "--config.stage2.otrw_paper.epochs=2")
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def run(effort: Effort) -> list[dict]:
    """One record for each command."""
    commands = IMPORTS | {
        f"experiments.{name} --help": ("-m", f"experiments.{name}", "--help") for name in HELP
    }
    commands["experiments.train --wrkdir=runs"] = WRONG
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(3 if effort.largest else 2):
        for name, arguments in commands.items():
            spent[name].append(_seconds(arguments))
    return [_record(name, of_name) for name, of_name in spent.items()] + _of_a_run()


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    rows = [[r["name"], number(r["processor"]), number(r["seconds"])] for r in records]
    return "\n\n".join(
        [
            "### The start of a script",
            "Whole processes, from their start to their end; medians. `--wrkdir` is no flag, which "
            "ends the script in a sentence. The run is one of `otrw_paper` "
            "on digits, two epochs a stage: with an empty folder of compiled programs, with the "
            "folder that this has left, and with `--nokeep_compiled`.",
            table(["command", "processor, s", "by the clock, s"], rows),
        ]
    )


def _of_a_run() -> list[dict]:
    """The same run three times: programs compiled and kept, taken, compiled and not kept."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"XDG_CACHE_HOME": f"{folder}/cache", "JAX_COMPILATION_CACHE_DIR": None}
        records: list[dict] = []
        for name, flag in [
            ("a run, programs not yet kept", "--keep_compiled"),
            ("a run, programs kept", "--keep_compiled"),
            ("a run, `--nokeep_compiled`", "--nokeep_compiled"),
        ]:
            workdir = f"--workdir={folder}/{len(records)}"
            arguments = ("-m", "experiments.train", CONFIG, *EPOCHS, workdir, flag)
            records.append(_record(name, [_seconds(arguments, environment)]))
    return records


def _record(name: str, spent: list[tuple[float, float]]) -> dict:
    processor, seconds = (statistics.median(values) for values in zip(*spent, strict=True))
    return {"section": "start", "name": name, "processor": processor, "seconds": seconds}


def _seconds(arguments: tuple[str, ...], changes: dict | None = None) -> tuple[float, float]:
    """Seconds of processor time, and by the clock, of a Python with these arguments.

    Raises:
        RuntimeError: it ends otherwise than it should; with what it says.
    """
    environment = os.environ | (changes or {})
    environment = {name: value for name, value in environment.items() if value is not None}
    before, clock = _processor(), time.perf_counter()
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    spent = _processor() - before, time.perf_counter() - clock
    if done.returncode != (arguments == WRONG):
        said = done.stderr.strip()
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {said}.")
    return spent


def _processor() -> float:
    """Processor time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
