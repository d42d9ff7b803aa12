"""Predictions of a network over a data set, gathered into the statistics that metrics need."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int, PyTree

from otrw_jax import metrics
from otrw_jax.devices import Devices, pick_devices
from otrw_jax.methods.base import Examples, global_sum
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
    devices: Devices | None = None,
) -> Callable[[PyTree, Examples], Statistics]:
    """Compiles the evaluation of a network; keep the result, it compiles once a batch shape.

    Args:
        model: the network.
        prepare: from stored to network inputs, without augmentation.
        num_classes: number of classes.
        batch_size: examples at a time, over all devices; the last batch is padded and masked.
        devices: those that share a batch; one by default.

    Returns:
        `(variables, examples) -> Statistics`, the examples as they are stored.
    """

    devices = devices or pick_devices()

    def of_batch(variables, inputs, labels, mask):
        logits = predict(model, variables, prepare(inputs))
        predictions = jnp.argmax(logits, axis=-1)
        statistics = Statistics(
            metrics.confusion_matrix(predictions, labels, num_classes, mask),
            metrics.calibration_bins(logits, labels, mask=mask),
        )
        return global_sum(statistics, devices.axis_name)

    of_batch = devices.compile(of_batch, spread=(1, 2, 3), arguments=4)

    def evaluate(variables, examples):
        count = examples.labels.shape[0]
        size = -(-min(batch_size, count) // devices.total) * devices.total
        total = None
        for at in range(0, count, size):
            rows = np.minimum(np.arange(at, at + size), count - 1)
            mask = np.arange(at, at + size) < count
            batch = examples.inputs[rows], examples.labels[rows], jnp.asarray(mask)
            part = of_batch(variables, *map(devices.share, batch))
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        return total

    return evaluate
