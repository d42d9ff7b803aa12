"""Which class an example is of, or of none; what it has of its class."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Integer, Shaped

from otrw_jax.checks import AnyArray


def is_class(labels: Integer[AnyArray, "n"], num_classes: int) -> Bool[Array, "n"]:
    """Whether each label is that of a class, in 0..K-1."""
    labels = _wide(labels)
    return (labels >= 0) & (labels < num_classes)


def class_ids(labels: Integer[AnyArray, "n"], num_classes: int) -> Int[Array, "n"]:
    """Labels in int32, with K in place of those of no class.

    Sums by class, `jax.nn.one_hot` and `of_class` leave K out.
    """
    labels = _wide(labels)
    return jnp.where(is_class(labels, num_classes), labels, num_classes).astype(jnp.int32)


def class_counts(labels: Integer[AnyArray, "n"], num_classes: int) -> Int[Array, "k"]:
    """Examples of each class; labels of no class are left out."""
    return jnp.bincount(class_ids(labels, num_classes), length=num_classes)


def of_class(
    values: Shaped[Array, "k ..."], labels: Integer[AnyArray, "n"]
) -> Shaped[Array, "n ..."]:
    """What each example has of its class, 0 where it is of none."""
    ids = class_ids(labels, values.shape[0])
    return values.at[ids].get(mode="fill", fill_value=0)


def _wide(labels: Integer[AnyArray, "n"]) -> Int[Array, "n"]:
    """A type of 8 bits need not hold the number of classes, and what is compared with it wraps."""
    labels = jnp.asarray(labels)
    return labels if labels.dtype.itemsize >= 4 else labels.astype(jnp.int32)
