"""From a command to its first line, and to a run's end with programs compiled or kept."""

import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import NamedTuple

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
ONE_MORE = "--config.stage2.otrw_paper.epochs=3"
REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
PROCESSES = (
    "Whole processes, from their start to their end; medians. `--wrkdir` is no flag, which "
    "ends the script in a sentence."
)
RUNS = (
    "The run is one of `otrw_paper` on digits, two epochs a stage: with an empty folder of "
    "compiled programs, with the folder that this has left, and with `--nokeep_compiled`"
)


class Spent(NamedTuple):
    """Seconds that a process took: of processor time, and by the clock."""

    processor: float
    clock: float


class NoSuchFlagError(RuntimeError):
    """A script has not the flag that it was given."""


def commands() -> dict[str, tuple[str, ...]]:
    """Arguments of a Python by their name, of all that end before they train anything."""
    of_help = {
        f"experiments.{name} --help": ("-m", f"experiments.{name}", "--help") for name in HELP
    }
    return IMPORTS | of_help | {"experiments.train --wrkdir=runs": WRONG}


def runs(folder: str) -> dict[str, tuple[str, ...]]:
    """The same run three times: programs compiled and kept, taken, compiled and not kept.

    Args:
        folder: of the run directories.
    """
    run = ("-m", "experiments.train", CONFIG, *EPOCHS)
    return {
        "a run, programs not yet kept": (*run, f"--workdir={folder}/first"),
        "a run, programs kept": (*run, f"--workdir={folder}/second"),
        "a run, `--nokeep_compiled`": (*run, f"--workdir={folder}/third", "--nokeep_compiled"),
    }


def run(effort: Effort) -> list[dict]:
    """One record for each command."""
    spent: dict[str, list[Spent]] = {name: [] for name in commands()}
    for _ in range(repeats(effort)):
        for name, arguments in commands().items():
            spent[name].append(spent_by(arguments))
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in runs(folder).items():
            spent[name] = [spent_by(arguments, apart(folder))]
    return [
        {"section": "start", "name": name, "processor": found.processor, "seconds": found.clock}
        for name, found in ((name, median(each)) for name, each in spent.items())
    ]


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    rows = [[r["name"], number(r["processor"]), number(r["seconds"])] for r in records]
    return "\n\n".join(
        [
            "### The start of a script",
            f"{PROCESSES} {RUNS}.",
            table(["command", "processor, s", "by the clock, s"], rows),
        ]
    )


def repeats(effort: Effort) -> int:
    """How often each of `commands` is measured; runs are measured once."""
    return 3 if effort.largest else 2


def median(spent: list[Spent]) -> Spent:
    """The median of each of the two times."""
    return Spent(*(statistics.median(values) for values in zip(*spent, strict=True)))


def apart(folder: str) -> dict[str, str | None]:
    """Changes of the environment that have programs kept in a folder of their own."""
    return {"XDG_CACHE_HOME": f"{folder}/cache", "JAX_COMPILATION_CACHE_DIR": None}


def spent_by(
    arguments: tuple[str, ...],
    changes: Mapping[str, str | None] | None = None,
    checkout: pathlib.Path = REPOSITORY,
) -> Spent:
    """What a Python with these arguments takes.

    Args:
        arguments: of the interpreter.
        changes: of the environment; None takes a variable out.
        checkout: whose code it runs.

    Raises:
        NoSuchFlagError: the script has no such flag.
        RuntimeError: it ends otherwise than it should; with what it says.
    """
    changed = os.environ | {"PYTHONPATH": str(checkout)} | dict(changes or {})
    environment = {name: value for name, value in changed.items() if value is not None}
    before, clock = _processor(), time.perf_counter()
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    spent = Spent(_processor() - before, time.perf_counter() - clock)
    if done.returncode != (arguments == WRONG):
        said = done.stderr.strip()
        kind = NoSuchFlagError if "Unknown command line flag" in said else RuntimeError
        raise kind(f"{' '.join(arguments)} ended with {done.returncode}: {said}.")
    return spent


def _processor() -> float:
    """Processor time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
