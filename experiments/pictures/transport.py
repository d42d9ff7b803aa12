"""The picture of an OT problem: its cost, its plans, the learned weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Array, Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from experiments.pictures.style import check, check_shape, save, sparse

TransportResult = tuple[
    Float[Array | np.ndarray, "n m"],
    Float[Array | np.ndarray, "n m"],
    Float[Array | np.ndarray, "n m"],
    Float[Array | np.ndarray, "n"],
]


def transport_picture(
    path: str | Path,
    results: Mapping[str, TransportResult],
    labels: Int[Array | np.ndarray, "n"],
    title: str = "",
) -> None:
    """Costs, transport plans before and after learning, and the learned weights.

    One column a cost; from the top the cost matrix, the plan for uniform weights, the plan for
    the learned weights, and the weights themselves against 1/n. Training examples run along x,
    ordered by class, each class as wide as another, so that those of few examples are seen; meta
    atoms run along y. Figures 1 and 5 of the paper.

    Args:
        path: the PNG file to write.
        results: `(cost [n m], plan_before [n m], plan_after [n m], weights [n])` of each cost.
        labels: classes of the n training examples.
        title: over the whole picture.

    Raises:
        ValueError: there is no result, or one's shapes do not agree with the labels.
    """
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    check(len(results) > 0, "results is empty: give at least one")
    _check_results(results, len(labels))
    sorted_results = {
        title: tuple(np.asarray(x, float)[order] for x in result)
        for title, result in results.items()
    }
    columns, labels = len(sorted_results), labels[order]
    figure = Figure((4.8 * columns + 1.4, 8.4), layout="constrained")
    panels = figure.subplots(
        4, columns, sharex=True, sharey="row", squeeze=False, height_ratios=[1, 1, 1, 1.1]
    )
    costs, before, after, weights = zip(*sorted_results.values(), strict=True)
    figure.suptitle(title)
    for column, name in enumerate(sorted_results):
        panels[0, column].set_title(name)
    cost_norm = Normalize(0, max(cost.max() for cost in costs))
    # On the root scale the many small masses of a plan show beside its few large ones.
    plan_norm = PowerNorm(0.5, 0, max(plan.max() for plan in (*before, *after)))
    cost_image = _draw_matrices(panels[0], costs, labels, "cividis", cost_norm)
    _draw_matrices(panels[1], before, labels, "Purples", plan_norm)
    plan_image = _draw_matrices(panels[2], after, labels, "Purples", plan_norm)
    for axes, values in zip(panels[3], weights, strict=True):
        _draw_weights(axes, values, labels)
    for row, name in enumerate(["cost", "plan, uniform weights", "plan, learned weights"]):
        panels[row, 0].set_ylabel(f"{name}\nmeta atom")
    panels[3, 0].set_ylabel("learned weight\n(probability)")
    for image, axes, name in [
        (cost_image, panels[0], "cost"),
        (plan_image, panels[1:3], "mass (square-root scale)"),
    ]:
        bar = figure.colorbar(image, ax=axes, aspect=12 * np.ndim(axes), pad=0.02)
        bar.set_label(name)
        bar.outline.set_visible(False)
    save(figure, path)


def _draw_matrices(
    row: Sequence[Axes],
    matrices: Sequence[Float[np.ndarray, "n m"]],
    labels: Int[np.ndarray, "n"],
    cmap: str,
    norm: Normalize,
) -> ScalarMappable:
    """A matrix a panel, put together of one image a class."""
    _, starts = np.unique(labels, return_index=True)
    for axes, matrix in zip(row, matrices, strict=True):
        m = matrix.shape[1]
        for place, part in enumerate(np.split(matrix, starts[1:])):
            extent = place, place + 1, m - 0.5, -0.5
            image = axes.imshow(part.T, cmap, norm, interpolation="nearest", extent=extent)
        axes.set(xlim=(0, len(starts)), ylim=(m - 0.5, -0.5), aspect="auto")
        axes.set_yticks(sparse(m))
        axes.tick_params(length=0)
        axes.spines[:].set_color("0.8")
    return image


def _draw_weights(
    axes: Axes, weights: Float[np.ndarray, "n"], labels: Int[np.ndarray, "n"]
) -> None:
    """Steps coloured by class, a tick in the middle of each class, a line at 1/n."""
    classes, starts = np.unique(labels, return_index=True)
    # The light end of viridis is too pale for thin bars on white.
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(classes)))
    for place, part in enumerate(np.split(weights, starts[1:])):
        edges = np.linspace(place, place + 1, len(part) + 1)
        axes.stairs(part, edges, fill=True, color=colours[place])
    n = len(weights)
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
    shown = sparse(len(classes))
    axes.set_xticks(shown + 0.5, classes[shown], fontsize=8)
    axes.set_xlabel("class of the training example (classes drawn equally wide)")
    axes.set_xlim(0, len(classes))
    axes.spines[["top", "right"]].set_visible(False)


def _check_results(results: Mapping[str, TransportResult], n: int) -> None:
    m = np.shape(next(iter(results.values()))[0])[-1]
    for title, (cost, before, after, weights) in results.items():
        for name, matrix in [("cost", cost), ("plan before", before), ("plan after", after)]:
            check_shape(f"{name} of {title!r}", matrix, (n, m))
        check_shape(f"weights of {title!r}", weights, (n,))
