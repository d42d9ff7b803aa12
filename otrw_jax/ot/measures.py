"""The balanced measure Q that the training set is transported to (Guo et al. 2022, eqs. 5, 12)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Integer, Real

from otrw_jax.checks import AnyArray
from otrw_jax.classes import class_ids
from otrw_jax.ot.arrays import float_dtype, require_labels, require_shapes, working


class Measure(NamedTuple):
    """Atoms with labels and masses.

    Attributes:
        features: `[m, ...]`: features `[m, d]`, or inputs of a network whose features are wanted.
        labels: class of each atom, `[m]`.
        weights: mass of each atom, `[m]`, summing to one.
    """

    features: Real[Array, "m ..."]
    labels: Int[Array, "m"]
    weights: Float[Array, "m"]


def whole(features: Real[AnyArray, "m ..."], labels: Integer[AnyArray, "m"]) -> Measure:
    """Every meta example an atom of mass 1/m (eq. 5).

    Raises:
        ValueError: shapes that do not fit, or known labels that are not whole numbers from 0 on.
            Traced, an example with a negative label is padding: of mass 0, the others equal.
    """
    require_shapes("whole", features=(features, "m ..."), labels=(labels, "m"))
    require_labels("meta", labels, least=0)
    measure = _uniform(features, labels)
    if not isinstance(labels, jax.core.Tracer):
        return measure
    present = (labels >= 0).astype(measure.weights.dtype)
    return measure._replace(weights=present / jnp.sum(present))


def prototypes(
    features: Real[AnyArray, "m ..."], labels: Integer[AnyArray, "m"], num_classes: int
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
        ValueError: shapes that do not fit; a class has no meta example, or a label is of no class.
            Under a transformation, where labels are not known, such a class gets a zero atom, and
            an example of no class, such as padding with a label of -1, counts for none.
    """
    require_shapes("prototypes", features=(features, "m ..."), labels=(labels, "m"))
    require_every_class(labels, num_classes)
    result = float_dtype(features)
    features = jnp.asarray(features, working(features))
    labels = class_ids(labels, num_classes)
    total = jax.ops.segment_sum(features, labels, num_classes)
    count = jnp.maximum(jnp.bincount(labels, length=num_classes), 1).astype(features.dtype)
    means = total / count.reshape((num_classes,) + (1,) * (features.ndim - 1))
    return means.astype(result)


def prototype_measure(
    features: Real[AnyArray, "m ..."], labels: Integer[AnyArray, "m"], num_classes: int
) -> Measure:
    """The prototypes as atoms of mass 1/k (eq. 12); errors as `prototypes`."""
    return _uniform(prototypes(features, labels, num_classes), jnp.arange(num_classes))


def random_sample(
    key: Array, features: Real[AnyArray, "m ..."], labels: Integer[AnyArray, "m"], num_classes: int
) -> Measure:
    """One random meta example a class, each of mass 1/k (Guo et al. 2022, section 6.1).

    Raises:
        ValueError: as `prototypes`, and the same where labels are not known.
    """
    require_shapes("random_sample", features=(features, "m ..."), labels=(labels, "m"))
    chosen = balanced_sample(key, labels, num_classes, per_class=1)
    atoms = jnp.asarray(features).at[chosen].get(mode="fill", fill_value=0)
    return _uniform(atoms, jnp.arange(num_classes))


def random_prototypes(
    key: Array,
    features: Real[AnyArray, "m ..."],
    labels: Integer[AnyArray, "m"],
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
    key: Array, labels: Integer[AnyArray, "n"], num_classes: int, per_class: int
) -> Int[Array, "{num_classes*per_class}"]:
    """Indices of `per_class` random examples of each class, class by class (appendix E).

    Drawn from the training set itself this gives the dynamic meta set. A class with fewer
    examples than `per_class` is drawn with replacement, in equal shares up to rounding.

    Raises:
        ValueError: `per_class` is below 1; a class has no example, or a label is of no class. Where
            labels are not known, the indices of such a class are n, past the last example, and an
            example of no class is not drawn.
    """
    if per_class < 1:
        raise ValueError(f"balanced_sample: per_class is {per_class}; it must be at least 1.")
    require_shapes("balanced_sample", labels=(labels, "n"))
    require_every_class(labels, num_classes)
    labels = class_ids(labels, num_classes)
    # Examples in random order within each class; position p of class c is taken modulo its size.
    order = jax.random.permutation(key, labels.shape[0])
    order = order[jnp.argsort(labels[order], stable=True)]
    sizes = jnp.bincount(labels, length=num_classes)
    starts = jnp.cumsum(sizes) - sizes
    position = jnp.arange(per_class)[None, :] % jnp.maximum(sizes, 1)[:, None]
    drawn = order[starts[:, None] + position]
    return jnp.where(sizes[:, None] > 0, drawn, labels.shape[0]).reshape(-1)


def require_every_class(labels: Integer[AnyArray, "m"], num_classes: int, of: str = "meta") -> None:
    """Raises a ValueError that names the classes without an example, or labels of no class.

    Labels that are traced are not checked.
    """
    if isinstance(labels, jax.core.Tracer):
        return
    require_labels(of, labels, least=0, most=num_classes - 1)
    present = np.unique(np.asarray(labels))
    absent = num_classes - len(present)
    if absent:
        first = np.setdiff1d(np.arange(min(num_classes, len(present) + 10)), present)[:10]
        names = ", ".join(map(str, first)) + (", ..." if absent > 10 else "")
        raise ValueError(
            f"{absent} of {num_classes} classes have no {of} example: {names}. Give every "
            "class at least one, or leave the class out of the problem."
        )


def _uniform(features, labels):
    count = labels.shape[0]
    return Measure(features, jnp.asarray(labels), jnp.full((count,), 1 / count))
