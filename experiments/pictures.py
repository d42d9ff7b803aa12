"""Pictures of results: confusion matrices, class weights, transport plans.

Each function takes NumPy or JAX arrays and writes one PNG file at 120 dots per inch. The colour
maps keep their order in grey and for colour-blind readers.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Array, Float, Int, Real
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

DPI = 120
_GREY = "0.35"
# Okabe and Ito's colours, told apart by colour-blind readers; line styles and markers differ too.
LINES = [
    {"color": "#D55E00", "marker": "o", "linestyle": "-"},
    {"color": "#0072B2", "marker": "s", "linestyle": "--"},
    {"color": "#009E73", "marker": "^", "linestyle": "-."},
    {"color": "#CC79A7", "marker": "D", "linestyle": ":"},
    {"color": "#000000", "marker": "v", "linestyle": "-"},
]

TransportResult = tuple[
    Float[Array | np.ndarray, "n m"],
    Float[Array | np.ndarray, "n m"],
    Float[Array | np.ndarray, "n m"],
    Float[Array | np.ndarray, "n"],
]


def confusion_pictures(
    path: str | Path,
    confusions: Mapping[str, Real[Array | np.ndarray, "k k"]],
    class_names: Sequence[str],
) -> None:
    """Confusion matrices side by side, each row in percent of its class's examples.

    Up to ten classes the percentages stand in the cells. A class without examples is hatched.
    Figure 2 of the paper.

    Args:
        path: the PNG file to write.
        confusions: counts by true class (row) and predicted class (column), one matrix a title.
        class_names: names of the K classes.

    Raises:
        ValueError: there is no matrix, or one is not `[k k]`.
    """
    k = len(class_names)
    matrices = {title: np.asarray(counts, float) for title, counts in confusions.items()}
    _check(len(matrices) > 0, "confusions is empty: give at least one matrix")
    for title, counts in matrices.items():
        _check_shape(f"confusion matrix of {title!r}", counts, (k, k))
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
        axes.set_xlabel("predicted class")
        _name_classes(axes, class_names, "xy")
        _bare(axes)
    panels[0].set_ylabel("true class")
    bar = figure.colorbar(image, ax=panels, shrink=0.8, pad=0.02)
    bar.set_label("share of the true class's examples (%)")
    bar.outline.set_visible(False)
    save(figure, path)


def class_weights_picture(
    path: str | Path,
    counts: Int[Array | np.ndarray, "k"],
    weights: Mapping[str, Float[Array | np.ndarray, "k"]],
    class_names: Sequence[str],
) -> None:
    """Training examples of each class as bars, its mean learned weight as lines.

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
    _check(len(lines) > 0, "weights is empty: give at least one vector")
    _check_shape("counts", counts, (k,))
    for name, values in lines.items():
        _check_shape(f"weights of {name!r}", values, (k,))
    figure = Figure((8, 4.4), layout="constrained")
    axes = figure.subplots()
    _draw_class_weights(axes, counts, lines, class_names)
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
    _check(len(panels) > 0, "panels is empty: give at least one")
    for title, (counts, weights) in panels.items():
        _check_shape(f"counts of {title!r}", counts, (k,))
        _check_shape(f"weights of {title!r}", weights, (k,))
    figure = Figure((1 + 4.6 * len(panels), 4.2), layout="constrained")
    for axes, (title, (counts, weights)) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        _draw_class_weights(axes, np.asarray(counts), {title: np.asarray(weights)}, class_names)
        axes.set_title(title)
    save(figure, path)


def _draw_class_weights(axes, counts, lines, class_names):
    """Counts as bars, and above them, on an axis of their own, weights as lines."""
    k = len(class_names)
    classes = np.arange(k)
    axes.bar(classes, counts, color="0.85", width=0.8 if k <= 30 else 1.0)
    axes.set(ylabel="training examples", xlabel="class", xlim=(-0.6, k - 0.4))
    axes.margins(y=0.08)
    axes.tick_params(axis="y", colors=_GREY)
    axes.yaxis.label.set_color(_GREY)
    _name_classes(axes, class_names, "x")
    above = axes.twinx()
    for i, (name, values) in enumerate(lines.items()):
        style = LINES[i % len(LINES)] | ({} if k <= 30 else {"marker": ""})
        above.plot(classes, values, label=name, linewidth=1.8, markersize=6, **style)
    above.set_ylabel("mean learned weight")
    above.set_ylim(bottom=0)
    above.margins(y=0.08)
    if k <= 12:
        _write_counts(above, axes, counts)
    for each in (axes, above):
        each.spines["top"].set_visible(False)


def transport_picture(
    path: str | Path,
    results: Mapping[str, TransportResult],
    labels: Int[Array | np.ndarray, "n"],
) -> None:
    """Costs, transport plans before and after learning, and the learned weights.

    One column a cost; from the top the cost matrix, the plan for uniform weights, the plan for
    the learned weights, and the weights themselves against 1/n. Training examples run along x,
    ordered by class, meta atoms along y. Figures 1 and 5 of the paper.

    Args:
        path: the PNG file to write.
        results: `(cost [n m], plan_before [n m], plan_after [n m], weights [n])` of each cost.
        labels: classes of the n training examples.

    Raises:
        ValueError: there is no result, or one's shapes do not agree with the labels.
    """
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    _check(len(results) > 0, "results is empty: give at least one")
    _check_results(results, len(labels))
    sorted_results = {
        title: tuple(np.asarray(x, float)[order] for x in result)
        for title, result in results.items()
    }
    columns = len(sorted_results)
    figure = Figure((4.8 * columns + 1.4, 8.4), layout="constrained")
    panels = figure.subplots(
        4, columns, sharex=True, sharey="row", squeeze=False, height_ratios=[1, 1, 1, 1.1]
    )
    costs, before, after, weights = zip(*sorted_results.values(), strict=True)
    for column, title in enumerate(sorted_results):
        panels[0, column].set_title(title)
    cost_norm = Normalize(0, max(cost.max() for cost in costs))
    # On the root scale the many small masses of a plan show beside its few large ones.
    plan_norm = PowerNorm(0.5, 0, max(plan.max() for plan in (*before, *after)))
    cost_image = _draw_matrices(panels[0], costs, "cividis", cost_norm)
    _draw_matrices(panels[1], before, "Purples", plan_norm)
    plan_image = _draw_matrices(panels[2], after, "Purples", plan_norm)
    for axes, values in zip(panels[3], weights, strict=True):
        _draw_weights(axes, values, labels[order])
    for row, name in enumerate(["cost", "plan before", "plan after"]):
        panels[row, 0].set_ylabel(f"{name}\nmeta atom")
    panels[3, 0].set_ylabel("learned weight")
    for image, axes, name in [
        (cost_image, panels[0], "cost"),
        (plan_image, panels[1:3], "mass (square-root scale)"),
    ]:
        bar = figure.colorbar(image, ax=axes, aspect=12 * np.ndim(axes), pad=0.02)
        bar.set_label(name)
        bar.outline.set_visible(False)
    save(figure, path)


def _write_counts(above: Axes, axes: Axes, counts: Int[np.ndarray, "k"]) -> None:
    """The height of each bar of `axes`, written on the axes `above` it, over the lines."""
    for index, count in enumerate(counts):
        label = above.annotate(
            f"{count:,}",
            (index, count),
            xycoords=axes.transData,
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=_GREY,
        )
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _draw_matrices(
    row: Sequence[Axes], matrices: Sequence[Float[np.ndarray, "n m"]], cmap: str, norm: Normalize
) -> ScalarMappable:
    for axes, matrix in zip(row, matrices, strict=True):
        image = axes.imshow(matrix.T, cmap=cmap, norm=norm, aspect="auto")
        axes.set_yticks(_sparse(matrix.shape[1]))
        axes.tick_params(length=0)
        axes.spines[:].set_color("0.8")
    return image


def _draw_weights(
    axes: Axes, weights: Float[np.ndarray, "n"], labels: Int[np.ndarray, "n"]
) -> None:
    """Bars coloured by class, a tick in the middle of each class, a line at 1/n."""
    classes, starts, sizes = np.unique(labels, return_index=True, return_counts=True)
    # The light end of viridis is too pale for thin bars on white.
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(classes)))
    n = len(weights)
    axes.bar(np.arange(n), weights, width=1.0, color=np.repeat(colours, sizes, axis=0))
    axes.axhline(1 / n, color="black", linestyle="--", linewidth=1)
    axes.annotate(
        "1/n",
        (1, 1 / n),
        xycoords=axes.get_yaxis_transform(),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )
    shown = _sparse(len(classes))
    axes.set_xticks((starts + (sizes - 1) / 2)[shown], classes[shown], fontsize=8)
    axes.set_xlabel("class of the training example")
    axes.set_xlim(-0.5, n - 0.5)
    axes.spines[["top", "right"]].set_visible(False)


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
    shown = _sparse(len(class_names))
    names = [str(class_names[i]) for i in shown]
    if "x" in which:
        long = max(map(len, names)) > 3
        turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
        axes.set_xticks(shown, names, **turn)
    if "y" in which:
        axes.set_yticks(shown, names)


def _sparse(count: int) -> Int[np.ndarray, "shown"]:
    """Indices of at most 20 evenly spaced items out of `count`, the first included."""
    return np.arange(0, count, -(-count // 20))


def _bare(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _check_results(results: Mapping[str, TransportResult], n: int) -> None:
    m = np.shape(next(iter(results.values()))[0])[-1]
    for title, (cost, before, after, weights) in results.items():
        for name, matrix in [("cost", cost), ("plan before", before), ("plan after", after)]:
            _check_shape(f"{name} of {title!r}", matrix, (n, m))
        _check_shape(f"weights of {title!r}", weights, (n,))


def _check_shape(name: str, values: Real[Array | np.ndarray, "..."], shape: tuple) -> None:
    _check(np.shape(values) == shape, f"{name}: shape is {np.shape(values)}; it must be {shape}")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def save(figure: Figure, path: str | Path) -> None:
    """Writes the PNG beside its place, then move it there: a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    figure.savefig(unfinished, format="png", dpi=DPI)
    os.replace(unfinished, path)
