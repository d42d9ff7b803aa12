"""Shows on real digits what re-weighting does: a table of recipes, pictures, and a checkpoint.

python -m experiments.demo --workdir=runs/demo
"""

import pathlib

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.cli import SEEDS, WORKDIR, run_app
from experiments.configs import digits
from experiments.experiment import Experiment
from experiments.figures import draw
from experiments.run import train
from otrw_jax.checkpoints import write_json

RECIPES = {
    "ce": "cross-entropy",
    "cb": "class-balanced stage 2",
    "otrw_paper": "OT, the paper's text",
    "otrw_released": "OT, the authors' program",
    "otrw_global": "OT, global closed form",
    "otrw_global_sampling": "OT, sampling by the global weights",
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
    workdir = pathlib.Path(WORKDIR.value or "runs/demo")
    seeds = [int(seed) for seed in SEEDS.value]
    results = {}
    for recipe in RECIPES:
        config = digits.get_config(f"recipe={recipe}")
        config.checkpoint_every = config.evaluate_every = 20
        experiment = Experiment(config)
        runs = []
        for seed in seeds:
            first = "" if recipe == "ce" else workdir / "ce" / f"seed_{seed}"
            run = train(experiment, workdir / recipe / f"seed_{seed}", seed, seed, first)
            runs.append([run["last"][column] for column in COLUMNS])
        results[recipe] = np.array(runs)
    write_json(
        workdir / "demo.json",
        {
            "seeds": seeds,
            **{
                recipe: {
                    column: {"mean": float(mean), "std": float(std)}
                    for column, mean, std in zip(COLUMNS, *_mean_std(values), strict=True)
                }
                for recipe, values in results.items()
            },
        },
    )
    console = Console(width=100)
    console.print(table(results, len(seeds)))
    for sentence in verdicts(results):
        console.print(sentence, highlight=False)
    run = workdir / "otrw_released" / f"seed_{seeds[0]}"
    for path in draw(run):
        print(f"picture: {path}")
    print(f"evaluate a checkpoint: python -m experiments.evaluate --workdir={run}")


def table(results: dict[str, np.ndarray], seeds: int) -> Table:
    """The table: test error and accuracy of the shot groups at the last epoch, in percent."""
    shown = Table(title=f"Long-tailed digits, test set, last epoch, {seeds} subset seeds (%)")
    shown.add_column("recipe")
    for column in COLUMNS.values():
        shown.add_column(column, justify="right")
    for recipe, values in results.items():
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(*_mean_std(values), strict=True)]
        shown.add_row(RECIPES[recipe], *cells)
    return shown


def verdicts(results: dict[str, np.ndarray]) -> list[str]:
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
        sentences.append(
            f"{RECIPES[recipe]}: {'better' if better else 'NOT better'} than cross-entropy overall "
            f"and on the few-shot classes (error {mean[error] - base[error]:+.1f}, "
            f"few-shot accuracy {mean[few] - base[few]:+.1f})."
        )
    return sentences


def _mean_std(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(0), values.std(0, ddof=min(1, len(values) - 1))


if __name__ == "__main__":
    run_app(main)
