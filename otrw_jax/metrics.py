"""What a classifier got right, and how sure it was.

Two statistics are gathered batch by batch, both plain sums: the confusion matrix and the
calibration bins. Statistics of batches add up to the statistics of their union; every metric is
a function of the sums, taken once. Metrics are fractions; only `summarise` speaks in percent.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Integer, Real

from otrw_jax.checks import (
    AnyArray,
    check_counts,
    check_labels,
    check_number,
    check_shape,
)
from otrw_jax.classes import is_class


def confusion_matrix(
    predictions: Integer[AnyArray, "n"],
    labels: Integer[AnyArray, "n"],
    num_classes: int,
    mask: Bool[AnyArray, "n"] | None = None,
    initial: Int[Array, "k k"] | None = None,
) -> Int[Array, "k k"]:
    """Number of examples of each true class (row) given to each predicted class (column).

    Args:
        predictions: predicted classes, in 0..K-1.
        labels: true classes, in 0..K-1. Where the mask is False, any value may stand. Where labels
            or predictions are traced, any other, such as -1 of padding, does not count.
        num_classes: K.
        mask: True for the examples that count; absent, all do.
        initial: counts that these are added to, such as those of the batches before.

    Raises:
        ValueError: the arguments are not vectors of one length, one that is not traced holds
            something other than classes, or `initial` is not of these classes.
    """
    check_number("confusion_matrix", "num_classes", num_classes, least=1, whole=True)
    check_shape("confusion_matrix", "predictions", predictions, (None,))
    labels, counted = _counted("confusion_matrix", labels, len(predictions), num_classes, mask)
    predictions, known = _counted(
        "confusion_matrix: predictions", predictions, len(predictions), num_classes, mask
    )
    if initial is None:
        initial = jnp.zeros((num_classes, num_classes), jnp.int32)
    check_shape("confusion_matrix", "initial", initial, (num_classes, num_classes))
    initial = jnp.asarray(initial)
    return initial.at[labels, predictions].add((counted & known).astype(initial.dtype))


def top1_error(confusion: Int[AnyArray, "k k"]) -> Float[Array, ""]:
    """Fraction of examples whose predicted class is not the true one; nan without examples."""
    return 1 - _ratio(jnp.trace(confusion), jnp.sum(confusion))


def per_class_accuracy(confusion: Int[AnyArray, "k k"]) -> Float[Array, "k"]:
    """Fraction of each class's examples that are predicted right; nan for a class with none."""
    return _ratio(jnp.diagonal(confusion), jnp.sum(confusion, axis=1))


def balanced_accuracy(confusion: Int[AnyArray, "k k"]) -> Float[Array, ""]:
    """Mean of the per-class accuracies over the classes that have examples."""
    return jnp.nanmean(per_class_accuracy(confusion))


def shot_accuracy(
    confusion: Int[AnyArray, "k k"],
    train_counts: Real[AnyArray, "k"],
    many: int = 100,
    few: int = 20,
) -> dict[str, Float[Array, ""]]:
    """Mean per-class accuracy of the many-, medium- and few-shot classes.

    Classes with more than `many` training examples are many-shot, those with fewer than `few`
    few-shot, the others (both ends included) medium-shot. A class without test examples is left
    out; a group without classes has nan. Liu et al., Large-Scale Long-Tailed Recognition in an
    Open World, CVPR 2019, section 4.

    Raises:
        ValueError: `few` is above `many`, the counts are no counts, or the confusion matrix is not
            of their classes.
    """
    check_number("shot_accuracy", "few", few)
    check_number("shot_accuracy", "many", many)
    if few > many:
        raise ValueError(
            f"shot_accuracy: few is {few}, above many, {many}; no class would be medium-shot."
        )
    check_shape("shot_accuracy", "train_counts", train_counts, (None,))
    if not isinstance(train_counts, jax.core.Tracer):
        check_counts("shot_accuracy", train_counts, whole=True)
    check_shape("shot_accuracy", "confusion", confusion, (len(train_counts), len(train_counts)))
    counts = jnp.asarray(train_counts)
    accuracy = per_class_accuracy(confusion)
    groups = {
        "many": counts > many,
        "medium": (counts >= few) & (counts <= many),
        "few": counts < few,
    }
    return {
        name: jnp.nanmean(jnp.where(members, accuracy, jnp.nan)) for name, members in groups.items()
    }


@struct.dataclass
class CalibrationBins:
    """Sums over the examples whose confidence falls into each bin; `+` joins two batches.

    Attributes:
        confidence: sum of the predicted class's probability; nan where one of them is.
        correct: number of examples predicted right.
        count: number of examples.
    """

    confidence: Float[Array, "bins"]
    correct: Int[Array, "bins"]
    count: Int[Array, "bins"]

    def __add__(self, other: "CalibrationBins") -> "CalibrationBins":
        return jax.tree.map(jnp.add, self, other)


def calibration_bins(
    logits: Float[AnyArray, "n k"],
    labels: Integer[AnyArray, "n"],
    num_bins: int = 15,
    mask: Bool[AnyArray, "n"] | None = None,
) -> CalibrationBins:
    """Confidence and correctness, gathered in `num_bins` bins ((i-1)/M, i/M] of confidence.

    An example whose softmax is not finite is in the last bin: it counts as wrong, and makes the
    confidence there nan.

    Args:
        logits: unnormalised log-probabilities of the K classes.
        labels: true classes, in 0..K-1, as of `confusion_matrix`.
        num_bins: number of bins, M.
        mask: True for the examples that count; absent, all do.

    Raises:
        ValueError: the shapes are not `[n k]`, `[n]` and `[n]`, a label that is not traced is of no
            class, or `num_bins` is less than 1.
    """
    check_number("calibration_bins", "num_bins", num_bins, least=1, whole=True)
    check_shape("calibration_bins", "logits", logits, (None, None))
    size, num_classes = logits.shape
    labels, counted = _counted("calibration_bins", labels, size, num_classes, mask)
    confidence = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).max(axis=-1)
    finite = jnp.isfinite(confidence)
    correct = (logits.argmax(axis=-1) == labels) & counted & finite
    bins = jnp.ceil(jnp.where(finite, confidence, 1.0) * num_bins).astype(jnp.int32) - 1
    bins = jnp.clip(bins, 0, num_bins - 1)
    return CalibrationBins(
        confidence=jax.ops.segment_sum(jnp.where(counted, confidence, 0), bins, num_bins),
        correct=jax.ops.segment_sum(correct.astype(jnp.int32), bins, num_bins),
        count=jax.ops.segment_sum(counted.astype(jnp.int32), bins, num_bins),
    )


def expected_calibration_error(bins: CalibrationBins) -> Float[Array, ""]:
    """Mean over examples of `|accuracy - confidence|` of their bin; nan without examples.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
    """
    return _ratio(jnp.abs(bins.correct - bins.confidence).sum(), bins.count.sum())


def summarise(
    confusion: Int[AnyArray, "k k"],
    bins: CalibrationBins,
    train_counts: Real[AnyArray, "k"],
    many: int = 100,
    few: int = 20,
) -> dict[str, float]:
    """All metrics as Python floats in percent: what a report prints.

    The keys are `error` (top-1), `balanced_accuracy`, `many_accuracy`, `medium_accuracy`,
    `few_accuracy` and `ece`. A group of classes that is empty has nan, and so has every metric
    where the bins are of logits that are not finite.

    Args:
        confusion: confusion matrix of the whole test set.
        bins: calibration bins of the whole test set.
        train_counts: number of training examples of each class.
        many, few: bounds of the groups; see `shot_accuracy`.

    Raises:
        ValueError: as `shot_accuracy`.
    """
    train_counts = np.asarray(train_counts)
    fractions = _fractions(confusion, bins, train_counts, many, few)  # It refuses bounds first.
    check_counts("shot_accuracy", train_counts, whole=True)
    factor = 100.0 if all_finite(bins) else np.nan
    return {name: factor * float(value) for name, value in jax.device_get(fractions).items()}


@partial(jax.jit, static_argnames=("many", "few"))
def _fractions(confusion, bins, train_counts, many, few):
    """One program: there are as many metrics as there are small operations in each."""
    shots = shot_accuracy(confusion, train_counts, many, few)
    return {
        "error": top1_error(confusion),
        "balanced_accuracy": balanced_accuracy(confusion),
        **{f"{group}_accuracy": accuracy for group, accuracy in shots.items()},
        "ece": expected_calibration_error(bins),
    }


def all_finite(bins: CalibrationBins) -> bool:
    """Whether the bins, of one data set or of a stack of several, are of finite logits alone."""
    return bool(np.isfinite(jax.device_get(bins.confidence)).all())


def _counted(
    where: str,
    labels: Integer[AnyArray, "n"],
    size: int,
    num_classes: int,
    mask: Bool[AnyArray, "n"] | None,
) -> tuple[Int[Array, "n"], Bool[Array, "n"]]:
    """Labels in int32, 0 for those that do not count, and which do."""
    check_shape(where, "labels", labels, (size,))
    counted = np.ones(size, bool) if mask is None else mask
    check_shape(where, "mask", counted, (size,))
    if any(isinstance(x, jax.core.Tracer) for x in (labels, counted)):
        check_labels(where, jax.ShapeDtypeStruct(labels.shape, labels.dtype), num_classes)
    else:
        check_labels(where, np.asarray(labels)[np.asarray(counted, bool)], num_classes)
    counted = jnp.asarray(counted, bool) & is_class(labels, num_classes)
    return jnp.where(counted, jnp.asarray(labels, jnp.int32), 0), counted


def _ratio(total: Real[Array, "..."], count: Int[Array, "..."]) -> Float[Array, "..."]:
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)
