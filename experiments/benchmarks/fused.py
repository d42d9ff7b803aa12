"""What `--fast_cpu` brings: a training step of ResNet-32 with XLA's fused kernels and without.

XLA reads its options once a process, so that each measurement is one of its own:

python -m experiments.benchmarks.fused BATCH PLAIN_OR_FUSED
"""

import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import jax

from experiments.benchmarks.epoch import NUM_CLASSES, ours
from experiments.benchmarks.timing import Effort
from experiments.cli.compilation import FUSION, fuse
from experiments.documents.markdown import number, table
from otrw_jax.data.splits import long_tailed_counts

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
KERNELS = ("plain", "fused")
STEPS = 4


def run(effort: Effort) -> list[dict]:
    """One record a batch size; none but on CPUs."""
    if jax.default_backend() != "cpu":
        return []
    records = []
    for batch_size in (16, 128) if effort.largest else (128,):
        found: dict[str, list[dict]] = {kernels: [] for kernels in KERNELS}
        for _ in range(3 if effort.largest else 1):
            for kernels in KERNELS:
                found[kernels].append(_measured(batch_size, kernels))
        for kernels, each in found.items():
            medians = {name: statistics.median(one[name] for one in each) for name in each[0]}
            records.append(
                {"section": "fused", "batch_size": batch_size, "kernels": kernels, **medians}
            )
    return records


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    title = "### Fused kernels on CPUs"
    if not records:
        return f"{title}\n\nNot measured: XLA has them on CPUs alone."
    by_key = {(r["batch_size"], r["kernels"]): r for r in records}
    rows = []
    for batch_size in sorted({r["batch_size"] for r in records}):
        plain, fused = (by_key[batch_size, kernels] for kernels in KERNELS)
        values = (
            *(1e3 * r["seconds"] for r in (plain, fused)),
            plain["seconds"] / fused["seconds"],
            *(batch_size / r["seconds"] for r in (plain, fused)),
            *(r["compilation"] for r in (plain, fused)),
        )
        rows.append([str(batch_size), *map(number, values)])
    return "\n\n".join(
        [
            title,
            "A step of cross-entropy with ResNet-32 on CIFAR's shapes, augmented, in processes of "
            "their own: as it is, and with `--fast_cpu` of the scripts. Compilation is that of the "
            "step and of what it starts from.",
            table(
                [
                    *("batch", "plain, ms", "fused, ms", "plain / fused", "plain, images/s"),
                    *("fused, images/s", "plain, compilation, s", "fused, compilation, s"),
                ],
                rows,
            ),
        ]
    )


def _measured(batch_size: int, kernels: str) -> dict:
    """What a process of its own prints.

    Raises:
        RuntimeError: it ends otherwise than it should; with what it says.
    """
    command = [sys.executable, "-m", "experiments.benchmarks.fused", str(batch_size), kernels]
    # Whether it is fused is the process's own to say, whatever this one was started with.
    others = [x for x in os.environ.get("XLA_FLAGS", "").split() if not x.startswith(FUSION)]
    environment = os.environ | {"XLA_FLAGS": " ".join(others)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended: {done.stderr.strip()}.")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(batch_size: int, kernels: str) -> dict:
    """Seconds of a step, the median, and of compilation."""
    jax.config.update("jax_enable_compilation_cache", False)
    if kernels == "fused":
        fuse()
    begun = time.perf_counter()
    step = ours("stage1", batch_size, 1, long_tailed_counts(NUM_CLASSES, 4990, 100.0))
    jax.block_until_ready(step())
    times = [time.perf_counter()]
    for _ in range(STEPS):
        jax.block_until_ready(step())
        times.append(time.perf_counter())
    seconds = [b - a for a, b in itertools.pairwise(times)]
    return {"seconds": statistics.median(seconds), "compilation": times[0] - begun}


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]), sys.argv[2])))
