"""Pictures of results: confusion matrices and class weights.

Each function takes NumPy or JAX arrays and writes one PNG file at 120 dots per inch. The colour
maps keep their order in grey and for colour-blind readers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.pictures.style import GREY, LINES, check, check_shape, save, sparse

ROWS = 1000
"""Rows of a confusion matrix, of which a picture shows no more."""


def confusion_pictures(
    path: str | Path,
    confusions: Mapping[str, Real[Array | np.ndarray, "k k"]],
    class_names: Sequence[str],
) -> None:
    """Confusion matrices side by side, each row in percent of its class's examples.

    Up to ten classes the percentages stand in the cells. A class without examples is hatched. Of
    more classes than `ROWS`, neighbours are taken together, as many as it needs. Figure 2 of the
    paper.

    Args:
        path: the PNG file to write.
        confusions: counts by true class (row) and predicted class (column), one matrix a title.
        class_names: names of the K classes.

    Raises:
        ValueError: there is no matrix, or one is not `[k k]`.
    """
    k = len(class_names)
    matrices = {title: np.asarray(counts) for title, counts in confusions.items()}
    check(len(matrices) > 0, "confusions is empty: give at least one matrix")
    for title, counts in matrices.items():
        check_shape(f"confusion matrix of {title!r}", counts, (k, k))
    together = -(-k // ROWS)
    matrices = {title: in_blocks(counts, together) for title, counts in matrices.items()}
    class_names = class_names[::together]
    of_blocks = f", {together} together" if together > 1 else ""
    side = 4.2 if k <= 10 else 4.8
    figure = Figure((side * len(matrices) + 1.6, side + 1.0), layout="compressed")
    panels = figure.subplots(1, len(matrices), sharey=True, squeeze=False)[0]
    for axes, (title, counts) in zip(panels, matrices.items(), strict=True):
        totals = counts.sum(axis=1, keepdims=True)
        percent = np.where(totals > 0, 100 * counts / np.maximum(totals, 1), np.nan)
        axes.set_facecolor("0.9")
        axes.patch.set(hatch="///", edgecolor="0.7")
        image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        if k <= 10:
            _write_cells(axes, percent)
        axes.set_title(title)
        axes.set_xlabel("predicted class" + of_blocks)
        _name_classes(axes, class_names, "xy")
        _bare(axes)
    panels[0].set_ylabel("true class" + of_blocks)
    bar = figure.colorbar(image, ax=panels, shrink=0.8, pad=0.02)
    bar.set_label("share of the true class's examples (%)")
    bar.outline.set_visible(False)
    save(figure, path)


def in_blocks(counts: Real[np.ndarray, "k k"], size: int) -> Real[np.ndarray, "r r"]:
    """Sums over `size` neighbouring rows and columns each, fewer at the ends."""
    for axis in (0, 1):
        starts = np.arange(0, counts.shape[axis], size)
        counts = np.add.reduceat(counts, starts, axis=axis) if size > 1 else counts
    return counts


def class_weights_picture(
    path: str | Path,
    counts: Int[Array | np.ndarray, "k"],
    weights: Mapping[str, Float[Array | np.ndarray, "k"]],
    class_names: Sequence[str],
) -> None:
    """The mean learned weight of each class as lines, its training examples as bars below.

    Figure 3 of the paper.

    Args:
        path: the PNG file to write.
        counts: number of training examples of each class.
        weights: mean weight of each class's examples, one vector a line.
        class_names: names of the K classes.

    Raises:
        ValueError: there are no weights, or a vector is not of length K.
    """
    k = len(class_names)
    counts = np.asarray(counts)
    lines = {name: np.asarray(values, float) for name, values in weights.items()}
    check(len(lines) > 0, "weights is empty: give at least one vector")
    check_shape("counts", counts, (k,))
    for name, values in lines.items():
        check_shape(f"weights of {name!r}", values, (k,))
    figure = Figure((8, 4.4), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    _draw_class_weights(panels, counts, lines, class_names)
    figure.legend(loc="outside upper center", ncols=min(len(lines), 4), frameon=False)
    save(figure, path)


def class_weights_panels(
    path: str | Path,
    panels: Mapping[str, tuple[Int[Array | np.ndarray, "k"], Float[Array | np.ndarray, "k"]]],
    class_names: Sequence[str],
) -> None:
    """`class_weights_picture` of several runs side by side, such as of several imbalance factors.

    Args:
        path: the PNG file to write.
        panels: training examples and mean weight of each class, `[K]` both, by title.
        class_names: names of the K classes.

    Raises:
        ValueError: there is no panel, or a vector is not of length K.
    """
    k = len(class_names)
    check(len(panels) > 0, "panels is empty: give at least one")
    for title, (counts, weights) in panels.items():
        check_shape(f"counts of {title!r}", counts, (k,))
        check_shape(f"weights of {title!r}", weights, (k,))
    figure = Figure((1 + 4.6 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(2, len(panels), sharex="col", squeeze=False, height_ratios=[3, 2])
    for number, (title, (counts, weights)) in enumerate(panels.items()):
        lines = {title: np.asarray(weights)}
        _draw_class_weights(axes[:, number], np.asarray(counts), lines, class_names)
        axes[0, number].set_title(title)
    for each in axes[:, 1:].flat:
        each.set_ylabel("")
    save(figure, path)


def _draw_class_weights(panels, counts, lines, class_names):
    """Weights as lines, and under them, in a panel of their own, counts as bars."""
    above, below = panels
    k = len(class_names)
    classes = np.arange(k)
    for i, (name, values) in enumerate(lines.items()):
        style = LINES[i % len(LINES)] | ({} if k <= 30 else {"marker": ""})
        above.plot(classes, values, label=name, linewidth=1.8, markersize=6, **style)
    drawn = np.concatenate([[0.0], *lines.values()])
    room = 0.08 * (np.ptp(drawn) or 1)  # No marker is cut at an edge.
    above.set(ylabel="mean learned weight", ylim=(drawn.min() - room, drawn.max() + room))
    above.grid(axis="y", color="0.92")
    below.bar(classes, counts, color="0.75", width=0.8 if k <= 30 else 1.0)
    below.set(ylabel="training examples", xlabel="class", xlim=(-0.6, k - 0.4))
    below.margins(y=0.2)
    _name_classes(below, class_names, "x")
    if k <= 12:
        _write_counts(below, counts)
    for axes in panels:
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)


def _write_counts(axes: Axes, counts: Int[np.ndarray, "k"]) -> None:
    """The height of each bar, above it."""
    for index, count in enumerate(counts):
        axes.annotate(
            f"{count:,}",
            (index, count),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=GREY,
        )


def _write_cells(axes: Axes, percent: Float[np.ndarray, "k k"]) -> None:
    for (row, column), value in np.ndenumerate(percent):
        if np.isfinite(value):
            colour = "white" if value > 50 else "0.15"
            size = 9 if row == column else 8
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=size
            )


def _name_classes(axes: Axes, class_names: Sequence[str], which: str) -> None:
    """Class names on the axes of `which`; a few of them where there are many."""
    shown = sparse(len(class_names))
    names = [str(class_names[i]) for i in shown]
    if "x" in which:
        long = max(map(len, names)) > 3
        turn: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(shown, names, **(turn if long else {}))
    if "y" in which:
        axes.set_yticks(shown, names)


def _bare(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
