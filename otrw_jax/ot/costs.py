"""Costs between training examples and meta atoms (Guo et al. 2022, eqs. 7-9)."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Integer, Real

from otrw_jax.checks import AnyArray, check_number
from otrw_jax.ot.arrays import require_labels, require_shapes, working


def label_cost(
    train_labels: Integer[AnyArray, "n"], meta_labels: Integer[AnyArray, "m"]
) -> Float[Array, "n m"]:
    """Returns 0 where the labels agree and 1 elsewhere (eq. 7).

    Args:
        train_labels: class of each training example, `[n]`. A negative one is of no class, such as
            padding, and agrees with none.
        meta_labels: class of each meta atom, `[m]`.

    Raises:
        ValueError: shapes that do not fit, or known labels that are not whole numbers.
    """
    require_shapes("label_cost", train_labels=(train_labels, "n"), meta_labels=(meta_labels, "m"))
    require_labels("train", train_labels)
    require_labels("meta", meta_labels)
    train_labels = jnp.asarray(train_labels)
    differ = train_labels[:, None] != jnp.asarray(meta_labels)[None, :]
    return (differ | (train_labels < 0)[:, None]).astype(jnp.float32)


def feature_cost(
    train_features: Real[AnyArray, "n d"], meta_features: Real[AnyArray, "m d"]
) -> Float[Array, "n m"]:
    """Returns 1 - cosine similarity, in [0, 2] (eq. 8).

    A zero vector has cosine 0 with everything, so its costs are 1 and its gradient is 0. Computed,
    and returned, in float32 or wider.

    Args:
        train_features: features of the training examples, `[n, d]`.
        meta_features: features of the meta atoms, `[m, d]`.

    Raises:
        ValueError: shapes that do not fit.
    """
    require_shapes(
        "feature_cost",
        train_features=(train_features, "n d"),
        meta_features=(meta_features, "m d"),
    )
    dtype = working(train_features, meta_features)
    train, meta = (_unit(jnp.asarray(x, dtype)) for x in (train_features, meta_features))
    return 1.0 - jnp.matmul(train, meta.T, precision="highest")


def combined_cost(
    train_features: Real[AnyArray, "n d"],
    train_labels: Integer[AnyArray, "n"],
    meta_features: Real[AnyArray, "m d"],
    meta_labels: Integer[AnyArray, "m"],
    *,
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
) -> Float[Array, "n m"]:
    """Returns the weighted sum of the feature and the label cost (eq. 9, both weights 1).

    Args:
        train_features: `[n, d]`.
        train_labels: `[n]`.
        meta_features: `[m, d]`.
        meta_labels: `[m]`.
        feature_weight: factor of `feature_cost`.
        label_weight: factor of `label_cost`.

    Raises:
        ValueError: shapes that do not fit, known labels that are not whole numbers, or a weight
            that is not a finite number.
    """
    require_shapes(
        "combined_cost",
        train_features=(train_features, "n d"),
        train_labels=(train_labels, "n"),
        meta_features=(meta_features, "m d"),
        meta_labels=(meta_labels, "m"),
    )
    check_number("combined_cost", "feature_weight", feature_weight)
    check_number("combined_cost", "label_weight", label_weight)
    by_feature = feature_cost(train_features, meta_features)
    by_label = label_cost(train_labels, meta_labels).astype(by_feature.dtype)
    return feature_weight * by_feature + label_weight * by_label


def _unit(vectors):
    """Scales rows to length one; zero rows stay zero, with a zero gradient."""
    squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
    zero = squared == 0  # Not of a row with a NaN, which stays one.
    return jnp.where(zero, 0.0, vectors / jnp.sqrt(jnp.where(zero, 1.0, squared)))
