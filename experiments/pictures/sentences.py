"""The picture of the sentences that weigh most and least."""

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from experiments.pictures.style import LINES, save

WIDTH = 96


def sentences_picture(
    path: str | Path,
    sentences: Sequence[str],
    labels: Int[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"],
    class_names: Sequence[str],
    count: int = 5,
) -> None:
    """The sentences of each class with the largest and the smallest weights, as bars with text.

    Args:
        path: the PNG file to write.
        sentences: n of them.
        labels: their classes.
        weights: their weights.
        class_names: names of the K classes.
        count: how many of each kind; a class with fewer than twice as many shows all it has.

    Raises:
        ValueError: the three are not of one length, or there is no sentence.
    """
    labels, weights = np.asarray(labels), np.asarray(weights, float)
    if not len(sentences) == len(labels) == len(weights) > 0:
        raise ValueError(
            f"there are {len(sentences)} sentences, {len(labels)} labels and {len(weights)} "
            "weights; give one or more, and as many of each."
        )
    shown = []
    for label in range(len(class_names)):
        ids = np.flatnonzero(labels == label)
        order = ids[np.argsort(-weights[ids], kind="stable")]
        ends = order if len(order) <= 2 * count else np.r_[order[:count], order[-count:]]
        shown += [(row, label) for row in ends]
    figure = Figure((13, 0.9 + 0.28 * len(shown)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(shown)) + np.cumsum(
        [0, *(0.8 * (b[1] != a[1]) for a, b in itertools.pairwise(shown))]
    )
    for label, name in enumerate(class_names):
        own = [at for at, (_, of) in enumerate(shown) if of == label]
        rows = [shown[at][0] for at in own]
        color = LINES[label % len(LINES)]["color"]
        axes.barh(places[own], weights[rows], color=color, label=name, height=0.75)
    axes.set_yticks(places, [textwrap.shorten(sentences[row], WIDTH) for row, _ in shown])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)  # A sentence may speak of dollars.
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"learned weight: the {count} largest and smallest of each class")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(class_names), frameon=False)
    save(figure, path)
