"""Times functions side by side, so that a slower minute of the machine slows them all."""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        repeats: measurements of each function.
        minimum_seconds: a measurement calls its function until it lasts at least this long.
        draws: random problems of each kind.
        largest: whether the problems that take longest are measured too.
    """

    repeats: int = 11
    minimum_seconds: float = 0.05
    draws: int = 6
    largest: bool = True


QUICK = Effort(repeats=5, minimum_seconds=0.02, draws=3, largest=False)


def interleaved(functions: dict[str, Callable[[], Any]], effort: Effort) -> dict[str, list[float]]:
    """Seconds that a call takes, `repeats` numbers for each function.

    The functions take turns, A B A B. Each call is waited for, so the time is that of one call
    with its dispatch. What a first call compiles is not counted.

    Args:
        functions: name to a function of no argument that returns arrays.
        effort: number and length of the measurements.
    """
    calls = {name: _calls_needed(f, effort.minimum_seconds) for name, f in functions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(effort.repeats):
        for name, function in functions.items():
            seconds[name].append(_time(function, calls[name]) / calls[name])
    return seconds


def median_ratio(seconds: list[float], others: list[float]) -> float:
    """Median over the repeats of the ratio of two times measured one after the other."""
    return statistics.median(a / b for a, b in zip(seconds, others, strict=True))


def on_one_core(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function in a fresh process that has one core, where XLA keeps to one thread.

    Args:
        function: of a module, so that the process can import it.
        *args: passed on; they and the result are pickled.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, _keep_one_core) as pool:
        return pool.submit(function, *args).result()


def _keep_one_core():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _calls_needed(function, minimum_seconds):
    _time(function, 1)
    calls = 1
    while (elapsed := _time(function, calls)) < minimum_seconds:
        calls = max(calls + 1, int(1.2 * calls * minimum_seconds / elapsed))
    return calls


def _time(function, calls):
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(function())
    return time.perf_counter() - start
