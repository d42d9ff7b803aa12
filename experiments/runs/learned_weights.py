"""The weights that a run has learned for its training examples, and tables of weights."""

import csv
import pathlib

import numpy as np
from jaxtyping import Float, PyTree, Shaped

from experiments.configs.kinds import FEATURES
from experiments.program.images.files import ImageFileSource
from experiments.runs.restoring import Restored
from otrw_jax.files import replacing
from otrw_jax.methods.base import Examples

COLUMNS = ("id", "label", "weight")


def learned_weights(end: Restored) -> Float[np.ndarray, "n"] | None:
    """The weight of each training example by `Method.weights`, or None where none are learned."""
    method = end.stage.method
    if method.weights is None:
        return None

    def read(variables: PyTree) -> Examples:
        return end.program.read(variables, end.prepared.train)

    return np.asarray(method.weights(end.state, read, end.stage.batch_size))


def export_weights(path: pathlib.Path, restored: Restored) -> None:
    """Writes the learned weights; ids are rows of the data set's training part, or image files.

    Labels are numbers of classes; of features and images, the names of their files.

    Raises:
        ValueError: the checkpoint's method learns no weights; or as `write_weights`.
        OSError: the file cannot be written; what was there is intact.
    """
    weights = learned_weights(restored)
    if weights is None:
        raise ValueError(
            f"{restored.stage.name} of {restored.program.config.recipe} learns no weights; "
            "choose hu, or the second stage of an otrw recipe that learns them."
        )
    labels = np.asarray(restored.prepared.data.raw.labels)
    if restored.program.config.data.name in FEATURES:
        labels = np.array(restored.prepared.dataset.class_names)[labels]
    ids, source = restored.prepared.split.train, restored.source
    if isinstance(source, ImageFileSource):
        files = np.array([str(path) for path in source.paths["train"]])
        write_weights(path, files[ids], labels, weights)
        return
    write_weights(path, ids, labels, weights)


def write_weights(
    path: pathlib.Path,
    ids: Shaped[np.ndarray, "n"],
    labels: Shaped[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"],
) -> None:
    """Writes a table of `id,label,weight`: .parquet as such, anything else as CSV.

    Raises:
        ModuleNotFoundError: a Parquet file, without pyarrow.
        OSError: the file cannot be written; what was there is intact.
    """
    columns = dict(zip(COLUMNS, (ids, labels, weights), strict=True))
    if path.suffix == ".parquet":
        try:
            import pyarrow
            from pyarrow import parquet
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{path} is written by pyarrow, which is not installed; pip install "
                "'otrw_jax[parquet]' brings it."
            ) from error
        with replacing(path) as draft:
            parquet.write_table(pyarrow.table(columns), draft)
        return
    with replacing(path) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
