"""The balanced measure Q that the training set is transported to (Guo et al. 2022, eqs. 5, 12)."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int


class Measure(NamedTuple):
    """Atoms with labels and masses.

    Attributes:
        features: `[m, ...]`: features `[m, d]`, or inputs of a network whose features are wanted.
        labels: class of each atom, `[m]`.
        weights: mass of each atom, `[m]`, summing to one.
    """

    features: Float[Array, "m ..."]
    labels: Int[Array, "m"]
    weights: Float[Array, "m"]


def whole(features: Float[Array, "m ..."], labels: Int[Array, "m"]) -> Measure:
    """Every meta example an atom of mass 1/m (eq. 5)."""
    chex.assert_equal_shape_prefix([features, labels], 1)
    return _uniform(features, labels)


def prototypes(
    features: Float[Array, "m ..."], labels: Int[Array, "m"], num_classes: int
) -> Float[Array, "k ..."]:
    """Mean of each class's meta features (eq. 12).

    Given images in place of features it returns mean images, which is what the authors' program
    does; the two are different choices.

    Args:
        features: features of the meta examples, `[m, ...]`.
        labels: `[m]`.
        num_classes: number of classes k.

    Returns:
        One atom a class, `[k, ...]`, in the order of the classes.

    Raises:
        ValueError: a class has no meta example, or a label is of no class. Under a transformation,
            where labels are not known, such a class gets a zero atom.
    """
    chex.assert_equal_shape_prefix([features, labels], 1)
    require_every_class(labels, num_classes)
    features = jnp.asarray(features, jnp.result_type(float))
    member = jax.nn.one_hot(labels, num_classes, dtype=features.dtype)
    total = jnp.einsum("mk,m...->k...", member, features, precision="highest")
    count = jnp.maximum(member.sum(0), 1.0)
    return total / count.reshape((num_classes,) + (1,) * (features.ndim - 1))


def prototype_measure(
    features: Float[Array, "m ..."], labels: Int[Array, "m"], num_classes: int
) -> Measure:
    """The prototypes as atoms of mass 1/k (eq. 12); errors as `prototypes`."""
    return _uniform(prototypes(features, labels, num_classes), jnp.arange(num_classes))


def random_sample(
    key: Array, features: Float[Array, "m ..."], labels: Int[Array, "m"], num_classes: int
) -> Measure:
    """One random meta example a class, each of mass 1/k (Guo et al. 2022, section 6.1).

    Raises:
        ValueError: a class has no meta example, as `prototypes`.
    """
    chosen = balanced_sample(key, labels, num_classes, per_class=1)
    return _uniform(jnp.asarray(features)[chosen], jnp.arange(num_classes))


def random_prototypes(
    key: Array,
    features: Float[Array, "m ..."],
    labels: Int[Array, "m"],
    num_classes: int,
    count: int,
) -> Measure:
    """A random subset of `count` prototypes, each of mass 1/count (section 5, ImageNet-LT).

    Raises:
        ValueError: `count` is not in 1..num_classes, or as `prototypes`.
    """
    if not 1 <= count <= num_classes:
        raise ValueError(f"random_prototypes: count is {count}; choose 1 to {num_classes}.")
    atoms = prototypes(features, labels, num_classes)
    chosen = jax.random.choice(key, num_classes, (count,), replace=False)
    return _uniform(atoms[chosen], chosen)


def balanced_sample(
    key: Array, labels: Int[Array, "n"], num_classes: int, per_class: int
) -> Int[Array, "k*p"]:
    """Indices of `per_class` random examples of each class, class by class (appendix E).

    Drawn from the training set itself this gives the dynamic meta set. A class with fewer
    examples than `per_class` is drawn with replacement, in equal shares up to rounding.

    Raises:
        ValueError: a class has no example, as `prototypes`.
    """
    require_every_class(labels, num_classes)
    labels = jnp.asarray(labels)
    # Examples in random order within each class; position p of class c is taken modulo its size.
    order = jax.random.permutation(key, labels.shape[0])
    order = order[jnp.argsort(labels[order], stable=True)]
    sizes = jnp.sum(jax.nn.one_hot(labels, num_classes, dtype=jnp.int32), axis=0)
    starts = jnp.cumsum(sizes) - sizes
    position = jnp.arange(per_class)[None, :] % jnp.maximum(sizes, 1)[:, None]
    return order[starts[:, None] + position].reshape(-1)


def require_every_class(labels: Int[Array, "m"], num_classes: int, of: str = "meta") -> None:
    """Raises a ValueError that names the classes without an example, or labels of no class.

    Labels that are traced are not checked.
    """
    if isinstance(labels, jax.core.Tracer):
        return
    foreign = np.setdiff1d(np.asarray(labels), np.arange(num_classes))
    if foreign.size:
        raise ValueError(
            f"{of} labels are whole numbers from 0 to {num_classes - 1}; {foreign[0]} is none."
        )
    absent = np.setdiff1d(np.arange(num_classes), np.asarray(labels))
    if absent.size:
        names = ", ".join(map(str, absent[:10])) + (", ..." if absent.size > 10 else "")
        raise ValueError(
            f"{absent.size} of {num_classes} classes have no {of} example: {names}. Give every "
            "class at least one, or leave the class out of the problem."
        )


def _uniform(features, labels):
    count = labels.shape[0]
    return Measure(features, jnp.asarray(labels), jnp.full((count,), 1 / count))
