"""Shows on real data what re-weighting does: a table of recipes, pictures, and a checkpoint.

python -m experiments.demo --workdir=runs/demo
python -m experiments.demo --data=sst2 --manual_dir=DIR --workdir=runs/demo_sst2
python -m experiments.demo --data=modelnet10 --manual_dir=DIR --workdir=runs/demo_clouds

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
from experiments.experiment import Experiment
from experiments.figures import draw
from experiments.run import train
from otrw_jax.checkpoints import write_json

DATA = flags.DEFINE_enum(
    "data", "digits", ["digits", "sst2", "modelnet10"], "What the recipes are shown on."
)
MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", "", "Where the Stanford trees or the clouds lie, if not to be downloaded."
)

RECIPES = {
    "ce": "cross-entropy",
    "cb": "class-balanced stage 2",
    "otrw_paper": "OT, the paper's text",
    "otrw_released": "OT, the authors' program",
    "otrw_global": "OT, global closed form",
    "otrw_global_sampling": "OT, sampling by the global weights",
}
NET = {"otrw_net": "OT, weight net"}
# Those that train on the kept features of a frozen backbone, in seconds.
KEPT = {name: RECIPES[name] for name in ("ce", "cb", "otrw_paper", "otrw_global")}


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
COLUMNS = {
    "error": "error",
    "many_accuracy": "many",
    "medium_accuracy": "medium",
    "few_accuracy": "few",
}


def main(argv: list[str]) -> None:
    """Trains every recipe on every seed, prints the table, draws the pictures."""
    del argv
    demo = DEMOS[DATA.value]
    workdir = pathlib.Path(WORKDIR.value or "runs/demo")
    chosen = seeds(demo.seeds)
    results = {}
    for recipe in demo.recipes:
        config = demo.config(recipe)
        config.checkpoint_every = config.evaluate_every = 20
        experiment = Experiment(config)
        runs = []
        for seed in chosen:
            first = "" if recipe == "ce" else workdir / "ce" / f"seed_{seed}"
            run = train(experiment, workdir / recipe / f"seed_{seed}", seed, seed, first)
            runs.append([run["last"].get(column, np.nan) for column in COLUMNS])
        results[recipe] = np.array(runs)
    write_json(
        workdir / "demo.json",
        {
            "seeds": chosen,
            **{
                recipe: {
                    column: {"mean": float(mean), "std": float(std)}
                    for column, mean, std in zip(COLUMNS, *_mean_std(values), strict=True)
                    if np.isfinite(mean)
                }
                for recipe, values in results.items()
            },
        },
    )
    console = Console(width=100)
    console.print(table(results, len(chosen), demo))
    for sentence in verdicts(results, demo):
        console.print(sentence, highlight=False)
    run = workdir / demo.pictured / f"seed_{chosen[0]}"
    for path in draw(run):
        print(f"picture: {path}")
    print(f"evaluate a checkpoint: python -m experiments.evaluate --workdir={run}")


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
        means = zip(*_mean_std(values[:, there]), strict=True)
        shown.add_row(demo.recipes[recipe], *(f"{m:.1f} ± {s:.1f}" for m, s in means))
    return shown


def verdicts(results: dict[str, np.ndarray], demo: Demo) -> list[str]:
    """Whether each OT preset beats cross-entropy in mean error and on the few-shot classes."""
    columns = list(COLUMNS)
    error, few = columns.index("error"), columns.index("few_accuracy")
    base = results["ce"].mean(0)
    sentences = []
    for recipe, values in results.items():
        if not recipe.startswith("otrw"):
            continue
        mean = values.mean(0)
        better = mean[error] < base[error] and mean[few] > base[few]
        judged = "better" if better else "NOT better"
        sentences.append(
            f"{demo.recipes[recipe]}: {judged} than cross-entropy overall "
            f"and on the few-shot classes (error {mean[error] - base[error]:+.1f}, "
            f"few-shot accuracy {mean[few] - base[few]:+.1f})."
        )
    return sentences


def _mean_std(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(0), values.std(0, ddof=min(1, len(values) - 1))


if __name__ == "__main__":
    run_app(main)
