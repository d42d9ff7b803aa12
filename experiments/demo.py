"""Shows on real data what re-weighting does: tables of recipes, pictures, and a checkpoint.

python -m experiments.demo --workdir=runs/demo
python -m experiments.demo --data=sst2 --manual_dir=DIR --workdir=runs/demo_sst2
python -m experiments.demo --data=modelnet10 --manual_dir=DIR --workdir=runs/demo_clouds

Second stages are compared with as many further epochs of cross-entropy, seed by seed.
The slower the data, the fewer the seeds (`--seeds=0,1,2` for others), so that each ends in minutes.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from experiments.cli import WORKDIR, run_app, seeds
from experiments.configs import digits, modelnet10, sst
from experiments.documents.measurements import spread
from experiments.documents.paired import SAME_EPOCHS, judged, same_epochs
from experiments.figures import draw
from experiments.program.experiment import Experiment
from experiments.runs.directory import flatten
from experiments.runs.training import train
from otrw_jax.training.checkpoints import write_json

DATA = flags.DEFINE_enum(
    "data", "digits", ["digits", "sst2", "modelnet10"], "What the recipes are shown on."
)
MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", "", "Where the Stanford trees or the clouds lie, if not to be downloaded."
)

RECIPES = {
    "ce": "cross-entropy",
    "continued": "continued, whole network",
    "continued_head": "continued, head",
    "cb": "class-balanced stage 2",
    "otrw_paper": "OT, the paper's text",
    "otrw_released": "OT, the authors' program",
    "otrw_global": "OT, global closed form",
    "otrw_global_sampling": "OT, sampling by global weights",
}
NET = {"otrw_net": "OT, weight net"}
# Those that train on the kept features of a frozen backbone, in seconds.
KEPT = {name: RECIPES[name] for name in ("ce", *SAME_EPOCHS, "cb", "otrw_paper", "otrw_global")}


class Demo(NamedTuple):
    """What is shown on a data set.

    Attributes:
        title: of the table.
        recipes: by name, what the table calls them.
        config: of a recipe's run.
        pictured: the recipe whose pictures are drawn.
        seeds: how many by default.
    """

    title: str
    recipes: Mapping[str, str]
    config: Callable[[str], ConfigDict]
    pictured: str
    seeds: int


def _digits(recipe: str) -> ConfigDict:
    return digits.get_config(f"recipe={recipe}")


def _sentences(recipe: str) -> ConfigDict:
    """A small part of SST-2, on the encoder as it is."""
    config = sst.get_config(f"sst2,minority=10,fine_tuning=0,recipe={recipe}")
    config.data.update({"first": 1200, "counts": (300, 10), "extra_per_class": 0})
    config.data.manual_dir = MANUAL_DIR.value
    return config


def _clouds(recipe: str) -> ConfigDict:
    """Fewer points, and the lighter network."""
    config = modelnet10.get_config(f"minority=4,backbone=pointnet,recipe={recipe}")
    config.data.update({"points": 128, "manual_dir": MANUAL_DIR.value})
    config.stage1.epochs = 7
    config.stage1.optimizer.learning_rate = 1e-3
    for stage in config.stage2.values():
        stage.epochs = 20
    return config


DEMOS = {
    "digits": Demo("Long-tailed digits", RECIPES, _digits, "otrw_released", 5),
    "sst2": Demo("A part of SST-2, 300 to 10", RECIPES | NET, _sentences, "otrw_net", 2),
    "modelnet10": Demo("ModelNet10, 100 to 4", KEPT | NET, _clouds, "otrw_paper", 1),
}
PARTS = {"continued": "network", "continued_head": "head"}
COLUMNS = {
    "error": "error",
    "many_accuracy": "many",
    "medium_accuracy": "medium",
    "few_accuracy": "few",
}


def main(argv: list[str]) -> None:
    """Trains every recipe on every seed, prints the tables, draws the pictures."""
    del argv
    demo = DEMOS[DATA.value]
    workdir = pathlib.Path(WORKDIR.value or "runs/demo")
    chosen = seeds(demo.seeds)
    results, others = {}, {}
    for recipe in demo.recipes:
        config = demo.config(recipe)
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


def summary(results: dict[str, np.ndarray]) -> dict[str, dict]:
    """By recipe and column the mean, and of several seeds the standard deviation, in percent."""
    summaries = {}
    for recipe, values in results.items():
        there = zip(COLUMNS, values.T, strict=True)
        summaries[recipe] = {
            column: {"mean": float(of_seeds.mean())}
            | ({"std": float(of_seeds.std(ddof=1))} if len(of_seeds) > 1 else {})
            for column, of_seeds in there
            if np.isfinite(of_seeds).all()
        }
    return summaries


def table(results: dict[str, np.ndarray], seeds: int, demo: Demo) -> Table:
    """The table: test error and accuracy of the shot groups at the last epoch, in percent.

    A group that no class belongs to has no column.
    """
    count = f"{seeds} subset {'seeds' if seeds > 1 else 'seed'}"
    shown = Table(title=f"{demo.title}, test set, last epoch, {count} (%)")
    shown.add_column("recipe")
    there = np.isfinite(next(iter(results.values()))[0])
    for column, has in zip(COLUMNS.values(), there, strict=True):
        if has:
            shown.add_column(column, justify="right")
    for recipe, values in results.items():
        shown.add_row(demo.recipes[recipe], *(spread(column, 1) for column in values[:, there].T))
    return shown


def differences(
    results: dict[str, np.ndarray], others: Mapping[str, list[str]], demo: Demo
) -> Table:
    """Each second stage less as many epochs of cross-entropy, seed by seed, and what that shows.

    Args:
        results: by recipe, `[seeds, columns]` in percent.
        others: by recipe, those of cross-entropy that have its epochs.
        demo: what is shown.
    """
    columns = list(COLUMNS)
    error, few = columns.index("error"), columns.index("few_accuracy")
    shown = Table(
        title="Less as many epochs of cross-entropy, by seed; shown by a paired t-test at 95 %",
    )
    for name in ("recipe", "less", "error", "few", "shown"):
        shown.add_column(name, justify="right" if name in ("error", "few") else "left")
    for recipe, values in results.items():
        for other in others[recipe]:
            less = values - results[other]
            shown.add_row(demo.recipes[recipe], PARTS[other], *judged(less[:, error], less[:, few]))
    return shown


if __name__ == "__main__":
    run_app(main)
