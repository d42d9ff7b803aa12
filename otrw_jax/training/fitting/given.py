"""Arrays that a program gives to be trained on: checked, split and put on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num

from otrw_jax.checks import AnyArray, check_examples
from otrw_jax.data.splits import draw_of_each
from otrw_jax.methods.base import Examples

Arrays = tuple[Num[AnyArray, "n ..."], Int[AnyArray, "n"]]
"""Inputs as they are stored, and their classes."""


class Given(NamedTuple):
    """What is trained on, and what is evaluated.

    Attributes:
        train: the training examples, less what was split off as the meta set.
        meta: the meta set, as it is stored; or None.
        parts: what is evaluated, by name: `test` and `held_out`, those that there are.
        rows: of the training arrays, that are trained on.
        total: number of the training arrays' rows.
        counts: training examples of each class.
    """

    train: Examples
    meta: Examples | None
    parts: dict[str, Examples]
    rows: Int[np.ndarray, "N"]
    total: int
    counts: Int[np.ndarray, "k"]


def examples_of(name: str, arrays: Arrays, num_classes: int) -> Examples:
    """Inputs and labels on the device.

    Args:
        name: what they are, as messages have it.
        arrays: inputs of numbers, and labels.
        num_classes: K.

    Raises:
        ValueError: they are no pair, lengths differ, there is no example, inputs are no numbers,
            not finite in float32 or beyond int32, or labels are no whole numbers of 0..K-1.
    """
    where = f"fit: {name}"
    if not isinstance(arrays, tuple | list) or len(arrays) != 2:
        raise ValueError(f"{where} is {type(arrays).__name__}; give a pair of inputs and labels.")
    inputs, labels = (x if hasattr(x, "dtype") else np.asarray(x) for x in arrays)
    if not any(jnp.issubdtype(inputs.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise ValueError(f"{where}: inputs are {inputs.dtype}; give an array of numbers.")
    labels = np.asarray(labels)
    if labels.dtype.kind in "OSU":
        raise ValueError(
            f"{where}: labels are {labels.dtype}, such as names; give whole numbers from 0 to "
            f"{num_classes - 1}, as np.unique(names, return_inverse=True)[1] makes them."
        )
    check_examples(where, inputs, labels, num_classes)
    if not len(labels):
        raise ValueError(f"{where} has no example; give some.")
    _check_whole(where, inputs)
    with np.errstate(over="ignore"):  # What is too large for float32 is told below.
        seen = jnp.asarray(inputs)
    finite = np.asarray(_finite(seen))
    if not finite.all():
        raise ValueError(
            f"{where}: {len(finite) - finite.sum()} of {len(finite)} inputs have numbers that are "
            f"not finite, the first of them that of row {int(np.argmin(finite))}; mend them, or "
            "leave them out of inputs and labels."
        )
    return Examples(seen, jnp.asarray(labels, jnp.int32))


def given_arrays(
    train: Arrays,
    meta: Arrays | int | None,
    parts: dict[str, Arrays | None],
    num_classes: int,
    seed: int,
) -> Given:
    """Checks all that is trained on and evaluated, before any training.

    Args:
        train: the training examples.
        meta: the meta set; or a number of each class's training examples that are split off; or
            None for none.
        parts: what is evaluated, by name; None where there is none.
        num_classes: K.
        seed: of what is split off.

    Raises:
        ValueError: as `examples_of`; inputs of two parts differ in shape or kind; a class has no
            training or meta example, or too few to split a meta set off.
    """
    whole = examples_of("train", train, num_classes)
    total = len(whole.labels)
    rows = np.arange(total)
    _check_classes("train", whole, num_classes)
    if meta is None:
        of_meta = None
    elif isinstance(meta, int | np.integer):
        chosen = _split_off(np.asarray(whole.labels), int(meta), num_classes, seed)
        rows = np.setdiff1d(rows, chosen)
        of_meta = jax.tree.map(lambda x: x[chosen], whole)
        whole = jax.tree.map(lambda x: x[rows], whole)
    else:
        of_meta = examples_of("meta", meta, num_classes)
        _check_classes("meta", of_meta, num_classes)
    evaluated = {
        name: examples_of(name, arrays, num_classes)
        for name, arrays in parts.items()
        if arrays is not None
    }
    for name, part in {"meta": of_meta, **evaluated}.items():
        if part is not None:
            _check_alike(name, part.inputs, whole.inputs)
    counts = np.bincount(np.asarray(whole.labels), minlength=num_classes)
    return Given(whole, of_meta, evaluated, rows, total, counts)


def _check_classes(name: str, examples: Examples, num_classes: int) -> None:
    sizes = np.bincount(np.asarray(examples.labels), minlength=num_classes)
    for c in np.flatnonzero(sizes == 0)[:1]:
        raise ValueError(
            f"fit: class {c} has no example in {name}, and the network tells {num_classes} "
            "classes apart; give it some, or number the classes without gaps and give the head an "
            "output for each."
        )


def _split_off(
    labels: Int[np.ndarray, "N"], count: int, num_classes: int, seed: int
) -> Int[np.ndarray, "m"]:
    if count < 1:
        raise ValueError(
            f"fit: meta is {count}; give 1 or more examples of each class, or None for no meta set."
        )
    sizes = np.bincount(labels, minlength=num_classes)
    for c in np.flatnonzero(sizes <= count)[:1]:
        raise ValueError(
            f"fit: class {c} has {sizes[c]} training examples, too few to split {count} off as "
            "meta examples and train on one; lower meta, or give a meta set."
        )
    return draw_of_each(labels, count, seed, num_classes, "training")


def _check_alike(name: str, inputs: Array, train: Array) -> None:
    kinds = [f"{x.dtype} of shape {x.shape[1:]}" for x in (inputs, train)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"fit: an input of {name} is {kinds[0]} and one of train {kinds[1]}; all go through "
            "one network."
        )


def _check_whole(where: str, inputs: AnyArray) -> None:
    """Refuses whole numbers that the device would take for others, modulo a power of two."""
    kind = jax.dtypes.canonicalize_dtype(inputs.dtype)
    if kind == inputs.dtype or not jnp.issubdtype(kind, jnp.integer):
        return
    least, most = inputs.min(initial=0), inputs.max(initial=0)
    if least < jnp.iinfo(kind).min or most > jnp.iinfo(kind).max:
        raise ValueError(
            f"{where}: inputs are {inputs.dtype} from {least} to {most}, beyond {kind}; give "
            "floating-point numbers, or smaller ones."
        )


@jax.jit
def _finite(inputs: Num[Array, "n ..."]) -> Bool[Array, "n"]:
    return jnp.isfinite(inputs).reshape(inputs.shape[0], -1).all(axis=1)
