"""Predictions of a network over a data set, gathered into the statistics that metrics need."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int, PyTree

from otrw_jax import metrics
from otrw_jax.methods.base import Examples
from otrw_jax.model import Model, predict


class Statistics(NamedTuple):
    """Sums over a data set: the confusion matrix `[k, k]` and the calibration bins."""

    confusion: Int[Array, "k k"]
    bins: metrics.CalibrationBins


def make_evaluator(
    model: Model,
    prepare: Callable[[PyTree], PyTree],
    num_classes: int,
    batch_size: int = 1000,
) -> Callable[[PyTree, Examples], Statistics]:
    """Compiles the evaluation of a network; keep the result, it compiles once a batch shape.

    Args:
        model: the network.
        prepare: from stored to network inputs, without augmentation.
        num_classes: number of classes.
        batch_size: examples at a time; the last batch is padded and masked.

    Returns:
        `(variables, examples) -> Statistics`, the examples as they are stored.
    """

    @jax.jit
    def of_batch(variables, inputs, labels, mask):
        logits = predict(model, variables, prepare(inputs))
        predictions = jnp.argmax(logits, axis=-1)
        return Statistics(
            metrics.confusion_matrix(predictions, labels, num_classes, mask),
            metrics.calibration_bins(logits, labels, mask=mask),
        )

    def evaluate(variables, examples):
        count = examples.labels.shape[0]
        size = min(batch_size, count)
        total = None
        for at in range(0, count, size):
            rows = np.minimum(np.arange(at, at + size), count - 1)
            mask = np.arange(at, at + size) < count
            part = of_batch(variables, examples.inputs[rows], examples.labels[rows], mask)
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        return total

    return evaluate
