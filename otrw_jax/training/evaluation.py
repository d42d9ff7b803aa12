"""Predictions of a network over a data set, gathered into the statistics that metrics need."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax import metrics
from otrw_jax.checks import check_examples, check_labels, check_shape
from otrw_jax.methods.base import Examples, everywhere, global_sum
from otrw_jax.models.model import Model, predict
from otrw_jax.training.devices import Devices, pick_devices
from otrw_jax.training.seeds import stack, unstack
from otrw_jax.training.streaming import Inputs, check_one_of_both, placed_batches


class LogitsNotFiniteError(ArithmeticError):
    """A network gives logits that are not finite, of which no metric says anything."""


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
    together: bool = False,
    correct: Callable[[Float[Array, "n k"]], Float[Array, "n k"]] | None = None,
) -> Callable[[PyTree, Examples], Statistics]:
    """Compiles the evaluation of a network; keep the result, it compiles once a batch shape.

    Args:
        model: the network.
        prepare: from stored to network inputs, without augmentation.
        num_classes: number of classes.
        batch_size: examples at a time, over all devices; the last batch is padded and masked.
        devices: those that share a batch; one by default.
        together: whether variables, and statistics, are stacks of several seeds; the examples are
            a stack too, or the same for all of them.
        correct: a map of the logits of all examples of a set, before they are judged.

    Returns:
        `(variables, examples) -> Statistics`, the examples as they are stored; their inputs may
        stay on the disk (`otrw_jax.training.streaming.Inputs`), of which each process reads its
        part.

    Raises:
        ValueError: (from the evaluation) no examples, labels of no class, logits of other classes,
            or another number of labels than of inputs that are streamed.
        LogitsNotFiniteError: (from the evaluation) logits whose softmax is not finite.
    """
    devices = devices or pick_devices()
    if correct is not None:
        return _corrected_evaluator(model, prepare, num_classes, batch_size, together, correct)

    def add(confusion, variables, inputs, labels, mask):
        """The matrix, of which many classes are many entries, in the buffer that it is given in."""
        logits = predict(model, variables, prepare(inputs))
        check_shape("evaluation", "logits", logits, (None, num_classes))
        bins = metrics.calibration_bins(logits, labels, mask=mask)
        seen = everywhere((jnp.argmax(logits, axis=-1), labels, mask), devices.axis_name)
        predictions, labels, mask = seen
        return (
            metrics.confusion_matrix(predictions, labels, num_classes, mask, initial=confusion),
            global_sum(bins, devices.axis_name),
        )

    shared: Callable
    if together:
        own = jax.jit(jax.vmap(add, in_axes=(0, 0, 0, 0, None)), donate_argnums=0)
        shared = jax.jit(jax.vmap(add, in_axes=(0, 0, None, None, None)), donate_argnums=0)
    else:
        shared = devices.compile(add, spread=(2, 3, 4), arguments=5, donate_argnums=(0,))

    def evaluate(variables, examples):
        stacked = examples.labels.ndim == 2
        check_labels("evaluation", examples.labels.reshape(-1), num_classes)
        count = _count(examples)
        size = -(-min(batch_size, count) // devices.total) * devices.total
        places = np.arange(-(-count // size) * size).reshape(-1, size)
        seeds = jax.tree.leaves(variables)[0].shape[:1] if together else ()
        confusion = jnp.zeros((*seeds, num_classes, num_classes), jnp.int32)
        confusion, bins = devices.replicate(confusion), None
        for at, inputs in zip(
            places, _shared(examples, np.minimum(places, count - 1), devices), strict=True
        ):
            rows = np.minimum(at, count - 1)
            batch = _taken(examples.labels, rows, stacked), jnp.asarray(at < count)
            function = own if stacked else shared
            placed = map(devices.share, batch)
            confusion, of_batch = function(confusion, variables, inputs, *placed)
            bins = of_batch if bins is None else bins + of_batch
        return _checked(Statistics(confusion, bins), count)

    return evaluate


def _shared(examples: Examples, rows: Int[np.ndarray, "s b"], devices: Devices) -> Iterator[PyTree]:
    """The inputs of each batch on the devices; those on the disk are read ahead."""
    if isinstance(examples.inputs, Inputs):
        check_one_of_both("evaluation", examples.inputs, examples.labels.shape[-1])
        own = devices.own(rows, axis=1)
        yield from placed_batches(
            examples.inputs,
            own.reshape(-1),
            own.shape[1],
            lambda batch: jax.tree.map(devices.share_own, batch),
        )
        return
    stacked = examples.labels.ndim == 2
    for batch in rows:
        yield jax.tree.map(
            lambda x, at=batch: devices.share(_taken(x, at, stacked)), examples.inputs
        )


def _count(examples: Examples) -> int:
    if not (count := examples.labels.shape[-1]):
        raise ValueError("evaluation: there are no examples; give one at least.")
    return count


def _taken(x: Array | np.ndarray, rows: Int[np.ndarray, "b"], stacked: bool) -> Array:
    """Rows of an array on the host are taken there: the whole of it need not fit on a device."""
    take = np.take if isinstance(x, np.ndarray) else jnp.take
    return jnp.asarray(take(x, rows, axis=1 if stacked else 0))


def _corrected_evaluator(model, prepare, num_classes, batch_size, together, correct):
    """Logits of a whole set first, by this process alone; then the map, then the statistics."""
    logits_of = jax.jit(lambda variables, inputs: predict(model, variables, prepare(inputs)))

    @jax.jit
    def judged(logits, labels):
        check_shape("evaluation", "logits", logits, (None, num_classes))
        logits = correct(logits)
        predictions = jnp.argmax(logits, axis=-1)
        return Statistics(
            metrics.confusion_matrix(predictions, labels, num_classes),
            metrics.calibration_bins(logits, labels),
        )

    def evaluate(variables, examples):
        count = _count(examples)
        if isinstance(examples.inputs, Inputs):
            check_labels("evaluation", examples.labels, num_classes)
            check_one_of_both("evaluation", examples.inputs, count)
            batches = placed_batches(examples.inputs, np.arange(count), batch_size, jax.device_put)
        else:
            check_examples("evaluation", examples.inputs, examples.labels, num_classes)
            batches = (
                jax.tree.map(lambda x, at=at: x[at : at + batch_size], examples.inputs)
                for at in range(0, count, batch_size)
            )
        parts = [logits_of(variables, inputs) for inputs in batches]
        return _checked(judged(jnp.concatenate(parts), examples.labels), count)

    def evaluate_together(variables, examples):
        seeds = jax.tree.leaves(variables)[0].shape[0]
        stacked = examples.labels.ndim == 2
        each = unstack(examples, seeds) if stacked else [examples] * seeds
        return stack([evaluate(*one) for one in zip(unstack(variables, seeds), each, strict=True)])

    return evaluate_together if together else evaluate


def _checked(statistics: Statistics, count: int) -> Statistics:
    """The statistics, unless they are of logits that are not finite."""
    if metrics.all_finite(statistics.bins):
        return statistics
    raise LogitsNotFiniteError(
        f"evaluation: not all logits of the {count} examples are finite; take a smaller learning "
        "rate, or look for inputs or parameters that are not finite."
    )
