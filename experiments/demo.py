"""Shows on real data what re-weighting does: tables of recipes, pictures, and a checkpoint.

python -m experiments.demo --workdir=runs/demo
python -m experiments.demo --data=sst2 --manual_dir=DIR --workdir=runs/demo_sst2
python -m experiments.demo --data=modelnet10 --manual_dir=DIR --workdir=runs/demo_clouds

Second stages are compared with as many further epochs of cross-entropy, seed by seed.
The slower the data, the fewer the seeds (`--seeds=0,1,2` for others), so that each ends in minutes.
"""

import pathlib

import numpy as np
from absl import flags
from rich.console import Console

from experiments.cli import WORKDIR, run_app, seeds
from experiments.documents.demo import COLUMNS, differences, summary, table
from experiments.documents.paired import same_epochs
from experiments.pictures.drawing import draw
from experiments.program.experiment import Experiment
from experiments.runs.identity import flatten
from experiments.runs.training import train
from experiments.studies.demonstrations import DEMOS
from otrw_jax.files import write_json

DATA = flags.DEFINE_enum(
    "data", "digits", ["digits", "sst2", "modelnet10"], "What the recipes are shown on."
)
MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", "", "Where the Stanford trees or the clouds lie, if not to be downloaded."
)


def main(argv: list[str]) -> None:
    """Trains every recipe on every seed, prints the tables, draws the pictures."""
    del argv
    demo = DEMOS[DATA.value]
    workdir = pathlib.Path(WORKDIR.value or "runs/demo")
    chosen = seeds(demo.seeds)
    results, others = {}, {}
    for recipe in demo.recipes:
        config = demo.config(recipe, MANUAL_DIR.value)
        config.checkpoint_every, config.evaluate_every = 20, 5
        others[recipe] = same_epochs(recipe, flatten(config.to_dict()))
        experiment = Experiment(config)
        runs = []
        for seed in chosen:
            first = "" if recipe == "ce" else workdir / "ce" / f"seed_{seed}"
            run = train(experiment, workdir / recipe / f"seed_{seed}", seed, seed, first)
            runs.append([run["last"].get(column, np.nan) for column in COLUMNS])
        results[recipe] = np.array(runs)
    write_json(workdir / "demo.json", {"seeds": chosen, **summary(results)})
    console = Console(width=100)
    console.print(table(results, len(chosen), demo))
    console.print(differences(results, others, demo))
    run = workdir / demo.pictured / f"seed_{chosen[0]}"
    for path in draw(run):
        print(f"picture: {path}")
    print(f"evaluate a checkpoint: python -m experiments.evaluate --workdir={run}")


if __name__ == "__main__":
    run_app(main)
