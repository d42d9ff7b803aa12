"""Costs between training examples and meta atoms (Guo et al. 2022, eqs. 7-9)."""

import chex
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


def label_cost(train_labels: Int[Array, "n"], meta_labels: Int[Array, "m"]) -> Float[Array, "n m"]:
    """Returns 0 where the labels agree and 1 elsewhere (eq. 7).

    Args:
        train_labels: class of each training example, `[n]`.
        meta_labels: class of each meta atom, `[m]`.
    """
    chex.assert_rank([train_labels, meta_labels], 1)
    differ = jnp.asarray(train_labels)[:, None] != jnp.asarray(meta_labels)[None, :]
    return differ.astype(jnp.float32)


def feature_cost(
    train_features: Float[Array, "n d"], meta_features: Float[Array, "m d"]
) -> Float[Array, "n m"]:
    """Returns 1 - cosine similarity, in [0, 2] (eq. 8).

    A zero vector has cosine 0 with everything, so its costs are 1 and its gradient is 0.

    Args:
        train_features: features of the training examples, `[n, d]`.
        meta_features: features of the meta atoms, `[m, d]`.
    """
    chex.assert_rank([train_features, meta_features], 2)
    chex.assert_equal_shape_suffix([train_features, meta_features], 1)
    similarity = jnp.matmul(_unit(train_features), _unit(meta_features).T, precision="highest")
    return 1.0 - similarity


def combined_cost(
    train_features: Float[Array, "n d"],
    train_labels: Int[Array, "n"],
    meta_features: Float[Array, "m d"],
    meta_labels: Int[Array, "m"],
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
    """
    chex.assert_equal_shape_prefix([train_features, train_labels], 1)
    chex.assert_equal_shape_prefix([meta_features, meta_labels], 1)
    return feature_weight * feature_cost(train_features, meta_features) + label_weight * label_cost(
        train_labels, meta_labels
    )


def _unit(vectors):
    """Scales rows to length one, in float32 or wider; zero rows stay zero, with a zero gradient."""
    vectors = vectors.astype(jnp.promote_types(vectors.dtype, jnp.float32))
    squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
    zero = squared == 0  # Not of a row with a NaN, which stays one.
    return jnp.where(zero, 0.0, vectors / jnp.sqrt(jnp.where(zero, 1.0, squared)))
