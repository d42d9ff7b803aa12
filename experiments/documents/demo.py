"""The tables that the demo prints: errors of the recipes, and what second stages gain."""

from collections.abc import Mapping

import numpy as np
from rich.table import Table

from experiments.documents.markdown import spread
from experiments.documents.paired import judged
from experiments.runs.outcomes import mean_of
from experiments.studies.demonstrations import Demo

PARTS = {"continued": "network", "continued_head": "head"}
COLUMNS = {
    "error": "error",
    "many_accuracy": "many",
    "medium_accuracy": "medium",
    "few_accuracy": "few",
}


def summary(results: dict[str, np.ndarray]) -> dict[str, dict]:
    """By recipe and column the mean, and of several seeds the standard deviation, in percent."""
    summaries = {}
    for recipe, values in results.items():
        there = zip(COLUMNS, values.T, strict=True)
        summaries[recipe] = {
            column: mean_of(of_seeds) for column, of_seeds in there if np.isfinite(of_seeds).all()
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
