"""Whether one way of training is shown to differ from another: differences seed by seed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.documents.findings import chosen, protocol_of
from experiments.documents.markdown import spread
from experiments.recipes import RECIPES

CONFIDENCE = 0.95
NOT_SHOWN = "no difference shown"
SAME_EPOCHS = ("continued", "continued_head")
"""Recipes that go on with cross-entropy: the budget of a second stage, without its method."""


def verdict(
    differences: Float[np.ndarray, "n"], least: bool = False, confidence: float = CONFIDENCE
) -> str:
    """Says `better`, `worse`, or that no difference is shown, by a paired t-test.

    One is shown where zero lies outside the confidence interval of the mean: the mean is further
    from zero than its standard error times the quantile of Student's t with n - 1 degrees of
    freedom (12.7 for two seeds, 2.8 for five). One seed never shows any. Differences that are all
    one number have no spread to be judged by; there the sign test decides, from six seeds on.

    Args:
        differences: one value less the other's, of each of n seeds.
        least: whether less is better, as of errors.
        confidence: of the two-sided interval.
    """
    differences = np.asarray(differences, float)
    n, mean = len(differences), differences.mean()
    if n < 2 or mean == 0:
        return NOT_SHOWN
    if np.ptp(differences) < 1e-4:  # Errors in percent, to the rounding of float32.
        shown = 2.0 ** (1 - n) < 1 - confidence
    else:
        from scipy.stats import t  # Slow to import, and needed only here.

        error = differences.std(ddof=1) / np.sqrt(n)
        shown = abs(mean) > t.ppf((1 + confidence) / 2, n - 1) * error
    return NOT_SHOWN if not shown else "better" if (mean < 0) == least else "worse"


def judged(
    error: Float[np.ndarray, "n"], few: Float[np.ndarray, "n"] | None = None
) -> tuple[str, str, str]:
    """Differences of errors and of few-shot accuracies as text, and what they show together.

    Args:
        error: differences of the test errors in percent, by seed.
        few: of the accuracies of the few-shot classes, where there are such classes.

    Returns:
        Mean ± standard deviation of both, and such as `error better, few worse`.
    """
    verdicts = {"error": verdict(error, least=True)}
    if few is not None:
        verdicts["few"] = verdict(few)
    shown = [f"{name} {said}" for name, said in verdicts.items() if said != NOT_SHOWN]
    texts = [spread(d, 1, sign=True) if d is not None else "" for d in (error, few)]
    return texts[0], texts[1], ", ".join(shown) or NOT_SHOWN


def same_epochs_rows(records: list[dict]) -> list[list[str]]:
    """Two-stage rows less as many epochs of cross-entropy, by held-out selection, as a table's.

    Args:
        records: of one data set and imbalance factor. Only runs of the same protocol, the same
            changes, the same second stage's epochs and the same seeds are compared.

    Returns:
        Row, the row that is taken from it, protocol, both differences, what they show, number of
        seeds.
    """
    runs: dict[tuple, dict] = {}
    for record in records:
        recipe, config = record["recipe"], record["config"]
        epochs = config.get(f"stage2.{recipe}.epochs")
        setting = protocol_of(record), repr(record["changes"]), epochs
        runs.setdefault((record["row"], *setting), {})[record["seed"]] = record
    rows = []
    for (row, *setting), own in runs.items():
        one = next(iter(own.values()))
        for other in same_epochs(one["recipe"], one["config"]):
            theirs = runs.get((other, *setting), {})
            seeds = sorted(own.keys() & theirs.keys())
            if seeds:
                pairs = [(chosen(own[seed]), chosen(theirs[seed])) for seed in seeds]
                error, few = _differences(pairs, "error"), _differences(pairs, "few_accuracy")
                assert error is not None  # Every result has an error.
                told = [f"`{row}`", f"`{other}`", setting[0], *judged(error, few)]
                rows.append([*told, str(len(seeds))])
    return rows


def _differences(pairs: list[tuple[dict, dict]], name: str) -> Float[np.ndarray, "n"] | None:
    if any(name not in one or name not in other for one, other in pairs):
        return None
    return np.array([one[name] - other[name] for one, other in pairs])


def same_epochs(recipe: str, fields: Mapping[str, Any]) -> list[str]:
    """The recipes of cross-entropy that a two-stage recipe is compared with at its own budget.

    Every one with the whole network trained on, and those that train the head alone with the head
    trained on as well.

    Args:
        recipe: its name.
        fields: of its config, flattened.
    """
    if recipe in SAME_EPOCHS or RECIPES[recipe].second is None:
        return []
    part = "choices.trainable" if RECIPES[recipe].preset else "trainable"
    head = fields[f"stage2.{recipe}.{part}"].startswith("head/")
    return list(SAME_EPOCHS if head else SAME_EPOCHS[:1])
