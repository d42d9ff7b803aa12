"""The picture of how runs converge."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.pictures.style import LINES, save


def convergence_picture(path: str | Path, histories: Mapping[str, Sequence[dict]]) -> None:
    """Training loss and test accuracy by epoch, counted over all stages, one line a run.

    A dotted line is where a later stage begins. Epochs without an evaluation have no point in the
    second panel, which is left out where no run has two. Figure 4 of the paper.

    Args:
        path: the PNG file to write.
        histories: records of the epochs of each run (`metrics.jsonl`), by title.

    Raises:
        ValueError: there is no run, or one without records.
    """
    if not histories or not all(histories.values()):
        raise ValueError("histories is empty, or one of them is: give runs that have records.")
    tested = {
        title: [record for record in records if "test" in record]
        for title, records in histories.items()
    }
    panels = 2 if max(map(len, tested.values())) > 1 else 1
    figure = Figure((5.5 * panels, 4.2), layout="constrained")
    losses, *accuracies = figure.subplots(1, panels, squeeze=False)[0]
    for number, (title, records) in enumerate(histories.items()):
        style = LINES[number % len(LINES)]
        _draw(losses, records, lambda record: record["loss"], style, title)
        for axes in accuracies:
            _draw(axes, tested[title], lambda record: 100 - record["test"]["error"], style)
    losses.set_ylabel("training loss (nats)")
    losses.set_yscale("log")
    last = max(records[-1]["number"] for records in histories.values())
    begins = {begin for records in histories.values() for begin in _later_stages(records)}
    for axes in (losses, *accuracies):
        for begin, stage in sorted(begins):
            axes.axvline(begin + 0.5, color="0.5", linestyle=":", linewidth=1.2)
            at = {"xycoords": axes.get_xaxis_transform(), "xytext": (3, -3)}
            axes.annotate(stage, (begin + 0.5, 1), va="top", textcoords="offset points", **at)
        axes.set(xlabel="epoch, over all stages", xlim=(0, last + 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    for axes in accuracies:
        axes.set_ylabel("test accuracy (%)")
    figure.legend(loc="outside upper center", ncols=min(len(histories), 4), frameon=False)
    save(figure, path)


def _draw(axes: Axes, records, value, style: dict, title: str | None = None) -> None:
    marker = style["marker"] if len(records) <= 40 else ""
    numbers, values = [r["number"] for r in records], [value(r) for r in records]
    axes.plot(numbers, values, label=title, **style | {"marker": marker, "markersize": 4})


def _later_stages(records: Sequence[dict]) -> list[tuple[int, str]]:
    """The last epoch before each stage but the first, and the stage's name."""
    pairs = itertools.pairwise(records)
    return [(a["number"], b["stage"]) for a, b in pairs if a["stage"] != b["stage"]]
