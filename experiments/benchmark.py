"""Measures the library on this machine, against other solvers and against PyTorch.

python -m experiments.benchmark --quick --out=benchmark.json --markdown=docs/benchmark.md
"""

import importlib.util
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
    start,
    step,
    stream,
)
from experiments.benchmarks import machine as measured
from experiments.benchmarks.solver import autograd as published
from experiments.benchmarks.solver import gradient, newton, sinkhorn, threshold
from experiments.benchmarks.timing import QUICK, Effort
from experiments.cli import MARKDOWN, define_path, run_app
from experiments.documents.markdown import rewrite
from otrw_jax.checks import nearest
from otrw_jax.files import write_json

QUICKLY = flags.DEFINE_bool("quick", False, "Fewer repeats, without the largest problems.")
ONLY = flags.DEFINE_list("only", [], "Sections to measure, by name; else all.")
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
    machine = measured.machine()
    records, parts = [], []
    for name in names:
        if name in NEED_PYTORCH and not importlib.util.find_spec("torch"):
            parts.append(f"*{name}*: not measured, PyTorch is not installed (extra `benchmark`).")
            continue
        start = time.perf_counter()
        found = SECTIONS[name].run(QUICK if QUICKLY.value else Effort())
        records += found
        parts.append(SECTIONS[name].markdown(found))
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    command = shlex.join(["python", "-m", "experiments.benchmark", *sys.argv[1:]])
    text = measured.section(command, machine, parts)
    print(text)
    if OUT.value:
        write_json(OUT.value, {"command": command, "machine": machine, "records": records})
    if MARKDOWN.value:
        rewrite(MARKDOWN.value, text, "benchmark")


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


if __name__ == "__main__":
    run_app(main, keep_compiled=False)
