"""The figures that a run directory, or several, have the data for."""

import pathlib

import numpy as np

from experiments.configs.kinds import BY_COUNTS
from experiments.pictures.classes import (
    class_weights_panels,
    class_weights_picture,
    confusion_pictures,
)
from experiments.pictures.convergence import convergence_picture
from experiments.pictures.plans import has_plan, transport_of_run, transport_toy
from experiments.pictures.sentences import sentences_picture
from experiments.pictures.transport import transport_picture
from experiments.recipes import RECIPES
from experiments.runs.learned_weights import learned_weights
from experiments.runs.restoring import Restored, restore
from experiments.studies.records import read


def draw(workdir: pathlib.Path, data_dir: str = "") -> list[pathlib.Path]:
    """Draws confusion before and after stage 2, convergence, weights by class, and OT's plan.

    A run that learns no weights by OT has a toy of 55 of its examples in the plan's place.

    Args:
        workdir: the run directory.
        data_dir: of `restore`.
    """
    last = restore(workdir, data_dir=data_dir)
    first = restore(workdir, "stage1", data_dir)
    names = last.prepared.dataset.class_names
    recipe = last.program.config.recipe
    paths = [workdir / "confusion_matrices.png", workdir / "convergence.png"]
    ends = {f"{RECIPES[recipe].trains_first or recipe} (stage 1)": first}
    if last.stage.name != first.stage.name:
        ends[f"{recipe} (stage 2)"] = last
    confusion_pictures(paths[0], {title: confusion_of(end) for title, end in ends.items()}, names)
    convergence_picture(paths[1], {recipe: read(workdir / "metrics.jsonl")})
    weights = learned_weights(last)
    if weights is not None:
        paths.append(workdir / "class_weights.png")
        class_weights_picture(paths[-1], *class_weights_of(last, weights), names)
        train = last.prepared.split.train
        inputs = last.source.dataset.train_inputs[train]
        if inputs.dtype.kind == "U":
            paths.append(workdir / "sentences.png")
            labels = last.source.dataset.train_labels[train]
            sentences_picture(paths[-1], inputs.tolist(), labels, weights, names)
    if weights is not None and has_plan(last):
        paths.append(workdir / "transport.png")
        results, labels = transport_of_run(last, weights)
        title = f"{recipe}: all {len(labels):,} training examples"
        transport_picture(paths[-1], results, labels, title)
    elif first.prepared.data.view.meta is not None:
        paths.append(workdir / "transport_toy.png")
        results, labels = transport_toy(first)
        title = f"Toy: weights of {len(labels)} examples learned by OT, on stage 1's features"
        transport_picture(paths[-1], results, labels, title)
    return paths


def compare(
    workdirs: list[pathlib.Path], folder: pathlib.Path, data_dir: str = ""
) -> list[pathlib.Path]:
    """Draws the last epochs of several runs side by side, and how they converge.

    Args:
        workdirs: the run directories.
        folder: where the pictures are written.
        data_dir: of `restore`, for all of them.

    Raises:
        ValueError: a run is given twice; the runs are not of one set of classes, or not judged on
            one test set.
    """
    known = [workdir.resolve() for workdir in workdirs]
    twice = next((path for path in known if known.count(path) > 1), None)
    if twice:
        raise ValueError(f"the runs to compare have {twice} more than once; give each run once.")
    ends = {}
    for workdir in workdirs:
        end = restore(workdir, data_dir=data_dir)
        config = end.program.config
        title = config.recipe
        if config.data.name not in BY_COUNTS and config.data.imbalance_factor:
            title += f", factor {config.data.imbalance_factor:g}"
        ends[title if title not in ends else f"{title} ({workdir})"] = end
    names = next(iter(ends.values())).prepared.dataset.class_names
    if any(list(end.prepared.dataset.class_names) != list(names) for end in ends.values()):
        raise ValueError("the runs to compare are of data sets with different classes.")
    (first, end_of_first), *others = zip(workdirs, ends.values(), strict=True)
    other = next((path for path, end in others if not _same_test_set(end, end_of_first)), None)
    if other:
        raise ValueError(
            f"the runs to compare are judged on different test sets, {first} and {other}; compare "
            "runs of one test set."
        )
    histories = [read(workdir / "metrics.jsonl") for workdir in workdirs]
    paths = [folder / "confusion_compared.png", folder / "convergence_compared.png"]
    confusion_pictures(paths[0], {title: confusion_of(end) for title, end in ends.items()}, names)
    convergence_picture(paths[1], dict(zip(ends, histories, strict=True)))
    panels = {}
    for title, end in ends.items():
        weights = learned_weights(end)
        if weights is not None:
            counts, means = class_weights_of(end, weights)
            panels[title] = counts, next(iter(means.values()))
    if panels:
        paths.append(folder / "class_weights_compared.png")
        class_weights_panels(paths[-1], panels, names)
    return paths


def _same_test_set(one: Restored, other: Restored) -> bool:
    return all(map(np.array_equal, _test_set(one), _test_set(other)))


def _test_set(end: Restored) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels; of sentences the texts, which each run may encode in its own way."""
    dataset = end.source.dataset
    if dataset.test_inputs.dtype.kind != "U":
        dataset = end.prepared.dataset
    return dataset.test_inputs, dataset.test_labels


def confusion_of(end: Restored) -> np.ndarray:
    """The confusion matrix of a checkpoint on the test set."""
    evaluate = end.program.evaluator(end.stage, False, False)
    return np.asarray(evaluate(end.state.variables, end.prepared.test).confusion)


def class_weights_of(
    end: Restored, weights: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Training examples of each class, and the mean weight of a class's examples, by recipe."""
    labels = np.asarray(end.prepared.data.raw.labels)
    counts = end.prepared.split.counts
    means = np.bincount(labels, weights, len(counts)) / np.maximum(counts, 1)
    return counts, {end.program.config.recipe: means}
