"""How much optimal transport adds: every loss, with and without it, with every use of a meta set.

python -m experiments.controls --config=experiments/configs/digits.py \\
    --config.seeds=0,1,2,3,4 --workdir=runs/controls
python -m experiments.controls --config=experiments/configs/cifar_features.py:dataset=cifar100 \\
    --config.seeds=0,1,2,3,4 --workdir=runs/controls_cifar100_features

From one first stage of cross-entropy a seed, whose backbone is frozen and whose features are kept,
the head is trained in every combination of a base, a use of the meta set and an OT step
(`experiments/studies/controls/`). First stages are trained where they are missing, or taken over
from `config.stage1_from`: a folder of runs, or network files, with `{seed}` in place of the seed.
The results are appended to `results/controls.jsonl`, of which `experiments.report` makes the table.
After a stop the same command goes on: with the first stages, or behind the cells that were done.
"""

import pathlib
import time

from ml_collections import ConfigDict
from rich.console import Console

from experiments.cli import CONFIG, RECORDS, WORKDIR, run_app
from experiments.configs.checks.fields import check_config
from experiments.configs.checks.relations import check_controls
from experiments.configs.overrides import run_config
from experiments.documents.controls import shown_table
from experiments.program.experiment import Experiment
from experiments.runs.identity import factor_of, fingerprint_of, flatten
from experiments.runs.network_files import stage1_of_seed
from experiments.runs.open_run import Run
from experiments.runs.provenance import provenance
from experiments.runs.restoring import restore_first
from experiments.runs.training import train_together
from experiments.studies.controls.cells import FOLLOWED, ControlCells
from experiments.studies.controls.grid import titled
from experiments.studies.controls.kept import KeptCells
from experiments.studies.records import append
from experiments.studies.rows import named_encoder
from otrw_jax.files import alone_in
from otrw_jax.training.fitting.identity import of_arrays


def main(argv: list[str]) -> None:
    """Trains first stages and all cells; prints the table and appends the record."""
    del argv
    given = run_config(CONFIG, FOLLOWED)
    config = ConfigDict(given)
    config.recipe = "ce"
    check_config(config)
    check_controls(config)
    seeds = list(config.seeds) or [config.seed]
    experiment = Experiment(config)
    workdir, taken = pathlib.Path(WORKDIR.value), experiment.config.stage1_from
    runs = [Run(workdir / f"seed_{s}", s, s, stage1_of_seed(taken, s)) for s in seeds]
    clock = time.perf_counter()
    train_together(experiment, runs)
    first_seconds = time.perf_counter() - clock
    with alone_in(workdir):
        _train_cells(given, experiment, seeds, [restore_first(experiment, run) for run in runs])
    print(f"First stages: {first_seconds:.1f} s.")


def _train_cells(given: ConfigDict, experiment: Experiment, seeds: list[int], firsts: list) -> None:
    config = experiment.config
    clock = time.perf_counter()
    cells = ControlCells(given, experiment.program(firsts[0][0]), seeds, firsts)
    identity = {
        "config": fingerprint_of(cells.config.to_dict()),
        "seeds": seeds,
        "subsets": [prepared.split.fingerprint for prepared, _ in firsts],
        "first stages": [of_arrays(variables) for _, variables in firsts],
        **provenance(),
    }
    kept = KeptCells(pathlib.Path(WORKDIR.value) / "cells.json", identity)
    if kept.cells:
        print(f"{len(kept.cells)} of {cells.count} cells are kept, and not trained again.")
    for group, found in cells.run(done=kept):
        kept.add(group, found, time.perf_counter() - clock)
        clock = time.perf_counter()
        print(f"{titled(group)}: {len(kept.cells)} of {cells.count} cells", flush=True)
    counts = firsts[0][0].split.counts
    append(
        pathlib.Path(RECORDS.value) / "controls.jsonl",
        {
            "dataset": experiment.source.dataset.name,
            "imbalance_factor": factor_of(config) or float(counts.max() / counts.min()),
            **named_encoder(config),
            "seeds": seeds,
            "fingerprints": identity["subsets"],
            "config": flatten(cells.config.to_dict()),
            **provenance(),
            "seconds": kept.seconds,
            "cells": kept.cells,
        },
    )
    console = Console(width=120)
    console.print(shown_table(kept.cells, "best_held_out" if cells.held_out else "last"))
    print(
        f"{cells.count} cells, seeds {', '.join(map(str, seeds))}, in {kept.seconds:.1f} s, "
        f"{kept.seconds / cells.count:.2f} s a cell."
    )
    kept.finish()


if __name__ == "__main__":
    run_app(main, "config", "workdir")
