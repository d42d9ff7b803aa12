"""What arguments must be: each mistake is a ValueError of one sentence, before any work is done."""

import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer, PyTree, Real

AnyArray = Array | np.ndarray
"""What functions take; what they return is of JAX, unless a signature says otherwise."""

Counts = Real[AnyArray, "k"] | Sequence[float]
"""Training examples of each of the K classes, or their proportions."""


def check_number(
    where: str,
    name: str,
    value: float | Array | Callable,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> None:
    """Raises a ValueError where an argument is no number, not finite or outside its bounds.

    Schedules, which are functions, and traced numbers are not checked.

    Args:
        where: the function that the argument is of.
        name: of the argument.
        value: the number.
        least, above, most, below: its bounds, the first and third included.
        whole: whether it must be a whole number, of an integer type.
    """
    if callable(value) or isinstance(value, jax.core.Tracer):
        return
    real = isinstance(value, numbers.Real | np.ndarray | jax.Array) and np.ndim(value) == 0
    if (
        real
        and (not whole or _is_whole(value))
        and math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    ):
        return
    wanted = _range(least, above, most, below, whole)
    raise ValueError(f"{where}: {name} is {value}; it must be {wanted}.")


def _is_whole(value) -> bool:
    """Whether a number counts something: of an integer type, and no truth value."""
    if isinstance(value, np.ndarray | jax.Array):
        return jnp.issubdtype(value.dtype, jnp.integer)
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_finite(where: str, name: str, values: AnyArray | Callable | None) -> None:
    """Raises a ValueError where an array has entries that are not finite.

    Functions that give one, and traced arrays, are not checked.
    """
    if values is None or callable(values) or isinstance(values, jax.core.Tracer):
        return
    if not np.isfinite(np.asarray(values)).all():
        raise ValueError(f"{where}: {name} are {np.asarray(values)}; they must be finite.")


def check_counts(where: str, counts: Counts, *, whole: bool = False, name: str = "counts") -> None:
    """Raises a ValueError where counts of a class's examples cannot be, or no class has any.

    Args:
        where: the function that the counts are given to.
        counts: of each class, `[K]`; or their proportions, where nothing depends on their scale.
        whole: whether something depends on it, and proportions are refused.
        name: of the argument.
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or not counts.size:
        raise ValueError(
            f"{where}: {name} has shape {counts.shape}; give a vector of one number or more."
        )
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise ValueError(f"{where}: {name} must be finite and at least 0, and is {counts}.")
    if not counts.any():
        raise ValueError(f"{where}: {name} is 0 everywhere; at least one must be more.")
    if whole and ((counts > 0) & (counts < 1)).any():
        raise ValueError(
            f"{where}: {name} is {counts}, of proportions; give the numbers of examples."
        )


def check_labels(
    where: str, labels: Integer[AnyArray | jax.ShapeDtypeStruct, "n"], num_classes: int
) -> None:
    """Raises a ValueError where labels are not a vector of classes, in 0..K-1.

    The values of traced labels are not checked; what reads them leaves out labels of no class, so
    that -1 may stand for padding.

    Args:
        where: what the labels are of.
        labels: of any integer type.
        num_classes: K.
    """
    labels = labels if hasattr(labels, "dtype") else np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(
            f"{where}: labels have shape {labels.shape}; give a vector, one for each example."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"{where}: labels are {labels.dtype}; give whole numbers.")
    if isinstance(labels, jax.core.Tracer | jax.ShapeDtypeStruct):
        return
    values = np.asarray(labels)
    foreign = (values < 0) | (values >= num_classes)
    if foreign.any():
        raise ValueError(
            f"{where}: labels are whole numbers from 0 to {num_classes - 1}; "
            f"{values[foreign][0]} is none."
        )


def check_examples(
    where: str, inputs: PyTree, labels: Integer[AnyArray, "n"], num_classes: int
) -> None:
    """Raises a ValueError where inputs and labels do not belong together, or as `check_labels`.

    Args:
        where: what the examples are.
        inputs: leaves `[n, ...]`, or None.
        labels: their classes.
        num_classes: K.
    """
    check_labels(where, labels, num_classes)
    for leaf in jax.tree.leaves(inputs):
        if leaf.shape[:1] != labels.shape:
            raise ValueError(
                f"{where}: inputs have shape {leaf.shape} and labels {labels.shape}; give one "
                "label for each input."
            )


def check_shape(where: str, name: str, value: Any, shape: tuple[int | None, ...]) -> None:
    """Raises a ValueError where an array has another shape; None stands for any length."""
    found = np.shape(value)
    if len(found) == len(shape) and all(
        b is None or a == b for a, b in zip(found, shape, strict=True)
    ):
        return
    wanted = ", ".join("any" if length is None else str(length) for length in shape)
    wanted += "," if len(shape) == 1 else ""
    raise ValueError(f"{where}: {name} has shape {found}; it must be ({wanted}).")


def _range(least, above, most, below, whole) -> str:
    upper = most if below is None else below
    lower = least if above is None else above
    if upper is None:
        parts = [
            f"{least} or more" if least is not None else "",
            f"above {above}" if above is not None else "",
            "whole" if whole else "finite",
        ]
        return " and ".join(part for part in parts if part)
    low, high = "[" if above is None else "(", "]" if below is None else ")"
    return f"in {low}{lower}, {upper}{high}{' and whole' if whole else ''}"


def some(names: Iterable[Any], most: int = 8, between: str = ", ") -> str:
    """The first of some names, as a sentence has them, and how many more there are."""
    texts = list(map(str, names))
    more = f"{between}and {len(texts) - most} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more


def nearest(name: str, known: Iterable[str]) -> str:
    """Of some names the one that a wrong one most likely stands for, `did you mean ...?`."""
    return difflib.get_close_matches(name, list(known), 1, 0)[0]
