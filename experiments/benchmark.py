"""Measures the library on this machine, against other solvers and against PyTorch.

python -m experiments.benchmark --quick --out=benchmark.json --markdown=docs/benchmark.md
python -m experiments.benchmark --quick --only=start --beside=../earlier

With --beside, a folder of another checkout, such as one of an earlier commit, scripts are started
in both, and the document gets a section of its own, beside that of the other measurements.
"""

import importlib.util
import pathlib
import shlex
import sys
import time

from absl import flags

from experiments.benchmarks import (
    encoder,
    epoch,
    fused,
    precision,
    seeds,
    step,
)
from experiments.benchmarks import machine as measured
from experiments.benchmarks.disk import stream
from experiments.benchmarks.scripts import beside, start
from experiments.benchmarks.solver import autograd as published
from experiments.benchmarks.solver import gradient, newton, sinkhorn, threshold
from experiments.benchmarks.timing import QUICK, Effort
from experiments.cli import MARKDOWN, define_path, run_app
from experiments.documents.markdown import rewrite
from otrw_jax.checks import nearest
from otrw_jax.files import write_json

QUICKLY = flags.DEFINE_bool("quick", False, "Fewer repeats, without the largest problems.")
ONLY = flags.DEFINE_list("only", [], "Sections to measure, by name; else all.")
BESIDE = define_path("beside", None, "Another checkout, to start scripts of both; --only=start.")
OUT = define_path("out", None, "JSON file for every measurement.")

SECTIONS = {
    "gradient": gradient,
    "published": published,
    "threshold": threshold,
    "sinkhorn": sinkhorn,
    "newton": newton,
    "step": step,
    "epoch": epoch,
    "seeds": seeds,
    "precision": precision,
    "encoder": encoder,
    "stream": stream,
    "fused": fused,
    "start": start,
}
NEED_PYTORCH = ("published", "epoch", "stream")


def main(argv: list[str]) -> None:
    """Measures, prints the tables and writes what was asked for."""
    del argv
    names = chosen_sections(ONLY.value)
    other = other_checkout(BESIDE.value, names)
    effort, machine = QUICK if QUICKLY.value else Effort(), measured.machine()
    records: list[dict] = []
    parts: list[str] = []
    for name in names:
        if name in NEED_PYTORCH and not importlib.util.find_spec("torch"):
            parts.append(f"*{name}*: not measured, PyTorch is not installed (extra `benchmark`).")
            continue
        clock = time.perf_counter()
        found = beside.run(effort, other) if other else SECTIONS[name].run(effort)
        records += found
        parts.append((beside if other else SECTIONS[name]).markdown(found))
        print(f"{name}: {time.perf_counter() - clock:.0f} s", file=sys.stderr, flush=True)
    command = shlex.join(["python", "-m", "experiments.benchmark", *sys.argv[1:]])
    title = "Beside another checkout" if other else "Benchmarks"
    text = measured.section(title, command, machine, parts)
    print(text)
    if OUT.value:
        write_json(OUT.value, {"command": command, "machine": machine, "records": records})
    if MARKDOWN.value:
        rewrite(MARKDOWN.value, text, "beside" if other else "benchmark")


def chosen_sections(only: list[str]) -> list[str]:
    """The sections named, in the order of the document; all where none is.

    Raises:
        ValueError: there is no such section; the nearest is suggested.
    """
    for name in only:
        if name not in SECTIONS:
            near = nearest(name, SECTIONS)
            raise ValueError(
                f"--only={name} is unknown; did you mean {near!r}? There are {', '.join(SECTIONS)}."
            )
    return [name for name in SECTIONS if not only or name in only]


def other_checkout(folder: str | None, names: list[str]) -> pathlib.Path | None:
    """The checkout that scripts are started in beside this one, if any.

    Raises:
        ValueError: it is none, or there is more to measure than the start of scripts.
    """
    if folder is None:
        return None
    if names != ["start"]:
        raise ValueError(f"--beside={folder} has a meaning for the start alone; add --only=start.")
    return beside.checkout(folder)


if __name__ == "__main__":
    run_app(main, keep_compiled=False)
