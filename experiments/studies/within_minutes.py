"""The agenda, as far as the time goes."""

import math
import time
from collections.abc import Iterable

from experiments.runs.provenance import provenance
from experiments.runs.training import OutOfTimeError
from experiments.studies.agenda import Cell
from experiments.studies.estimates import Estimates
from experiments.studies.filling import FAILURES, Filler
from experiments.studies.records import append, read
from otrw_jax.data.builders.manual import SourceError

SHOWN = 5


def fill(cells: Iterable[Cell], filler: Filler, minutes: float) -> None:
    """Runs the cells that have no record, in their order, until the time is over.

    What is begun goes first, what failed before goes last; seeds that fit come before those that
    do not, which go on in the next call. A failure is kept in `failures.jsonl`,
    and the next cell is taken.

    Args:
        cells: the most valuable first.
        filler: finds and runs them.
        minutes: how long to go on.
    """
    until = time.monotonic() + 60 * minutes
    estimates, absent = Estimates(filler), set()
    cells = list(cells)
    for cell in cells:
        filler.copy(cell)
    waiting = _in_order([cell for cell in cells if filler.left(cell)], filler)
    while waiting and time.monotonic() < until:
        cell, waiting = _next(waiting, estimates, filler, until - time.monotonic())
        if cell.dataset in absent or not filler.left(cell):
            continue
        print(f"begins: {cell}", flush=True)
        count = len(filler.records[cell.table])
        try:
            filler.run(cell, until)
        except OutOfTimeError as stop:
            print(f"the time is over {stop}")
            break
        except (FileNotFoundError, SourceError, ImportError) as error:
            absent.add(cell.dataset)
            print(f"{cell.dataset} is left out: {' '.join(str(error).split())}")
        except (ValueError, ArithmeticError, OSError, RuntimeError) as error:
            _note_failure(cell, filler, error)
        for record in filler.records[cell.table][count:]:
            estimates.note(record)
    print("\n".join(report([cell for cell in cells if filler.left(cell)], filler, estimates)))


def report(cells: list[Cell], filler: Filler, estimates: Estimates) -> list[str]:
    """What is left, and how long it takes here."""
    runs, unknown = set(), 0
    named: dict = {}
    next_ones: list = []
    for cell in cells:
        seconds = 0.0
        for seed in filler.left(cell):
            if (cell[:5], seed) in runs:
                continue
            runs.add((cell[:5], seed))
            new = {k: v for k, v in estimates.left(cell, seed).items() if k not in named}
            named |= new
            seconds += sum(new.values())
            unknown += math.isnan(sum(new.values()))
        if len(next_ones) < SHOWN:
            next_ones.append(f"  next: {cell}: {_time(seconds)}")
    known = sum(value for value in named.values() if not math.isnan(value))
    if not runs:
        return ["left: nothing."]
    hours = f"left: {len(runs)} runs; {_time(known)} here by the seconds of the records"
    return [
        f"{hours}, without {unknown} of unknown length." if unknown else f"{hours}.",
        *next_ones,
    ]


def _in_order(cells: list[Cell], filler: Filler) -> list[Cell]:
    """Begun cells first, cells that failed last."""
    failed = {
        (f["table"], f["row"], f["dataset"], f["imbalance_factor"], f["protocol"])
        for f in read(filler.folders.records / FAILURES)
    }

    def rank(cell):
        paths = [filler.run_directory(cell, seed) for seed in filler.left(cell)]
        return cell[:5] in failed, not any((path / "metrics.jsonl").exists() for path in paths)

    return sorted(cells, key=rank)


def _next(
    waiting: list[Cell], estimates: Estimates, filler: Filler, seconds: float
) -> tuple[Cell, list[Cell]]:
    """The first cell with the seeds that fit, else the first of all; and what waits still."""
    for at, cell in enumerate(waiting):
        # What is unknown is tried.
        lengths = {
            seed: sum(s for s in estimates.left(cell, seed).values() if not math.isnan(s))
            for seed in filler.left(cell)
        }
        fitting = tuple(seed for seed, length in lengths.items() if length <= seconds)
        if fitting:
            others = tuple(seed for seed in lengths if seed not in fitting)
            rest = [cell._replace(seeds=others)] if others else []
            return cell._replace(seeds=fitting), [*waiting[:at], *rest, *waiting[at + 1 :]]
    return waiting[0], waiting[1:]


def _note_failure(cell: Cell, filler: Filler, error: Exception) -> None:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    path = filler.folders.records / FAILURES
    about = filler.about(cell) | {"dataset": cell.dataset, "imbalance_factor": cell.factor}
    append(path, about | {"seeds": filler.left(cell), "error": text} | provenance())
    print(f"failed, noted in {path}: {cell}: {text}", flush=True)


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "unknown"
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
