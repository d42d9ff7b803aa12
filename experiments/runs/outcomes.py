"""A run's results: its last epoch and its best ones; over seeds their mean and deviation."""

from collections.abc import Sequence

import numpy as np

NAMES = {
    "last": "last epoch",
    "best_held_out": "best by the held-out part",
    "best_test": "best by the test set itself",
}


def three_results(history: list[dict]) -> dict:
    """Of the last stage: the last epoch, and the best by balanced accuracy on either part."""
    records = {
        "last": history[-1],
        "best_held_out": best_record(history, "held_out"),
        "best_test": best_record(history, "test"),
    }
    return {
        name: record and {"epoch": record["number"], **record["test"]}
        for name, record in records.items()
    }


def best_record(history: list[dict], part: str) -> dict | None:
    """The first epoch of the last stage with the highest balanced accuracy on a part."""
    records = [r for r in history if r["stage"] == history[-1]["stage"] and part in r]
    return max(records, key=lambda r: r[part]["balanced_accuracy"]) if records else None


def mean_results(runs: list[dict]) -> dict:
    """Mean over seeds of each of the three results, and of several seeds the deviation."""
    return {
        name: {key: mean_of([run[name][key] for run in runs]) for key in runs[0][name]}
        for name in runs[0]
        if runs[0][name]
    }


def mean_of(values: Sequence[float]) -> dict[str, float]:
    """The mean, `{"mean": ...}`, and of several values their sample deviation, `"std"`."""
    deviation = {"std": float(np.std(values, ddof=1))} if len(values) > 1 else {}
    return {"mean": float(np.mean(values)), **deviation}


def result_lines(results: dict) -> list[str]:
    """The three results, or their means over seeds, in a line each."""
    lines = []
    for name, title in NAMES.items():
        if results.get(name):
            shown = {key: value for key, value in results[name].items() if key != "epoch"}
            text = ", ".join(f"{key} {_number(value)}" for key, value in shown.items())
            lines.append(f"{title}: {text}")
    return lines


def _number(value) -> str:
    if not isinstance(value, dict):
        return f"{value:.2f}"
    spread = f" ± {value['std']:.2f}" if "std" in value else ""
    return f"{value['mean']:.2f}{spread}"
