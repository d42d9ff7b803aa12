"""How an epoch's examples are drawn, where not in a random order of all of them.

A sampler is `(step, labels [N]) -> [N]`, unnormalised probabilities of the examples of an epoch
that begins at that step; `sampled` gives it to a Method. Examples are drawn with replacement.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from otrw_jax.checks import check_counts, check_labels, check_number, check_shape
from otrw_jax.classes import class_counts, of_class
from otrw_jax.methods.base import Method

Sampler = Callable[[Int[Array, ""], Int[Array, "N"]], Float[Array, "N"]]


def class_power(num_classes: int, q: float) -> Sampler:
    """A class in proportion to n_c^q, and its examples alike.

    Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020,
    eq. 1: q = 1 is instance-balanced, 1/2 square-root and 0 class-balanced sampling.

    Args:
        num_classes: K; a class without examples is never drawn.
        q: the power, from 0 to 1.

    Raises:
        ValueError: `q` is outside [0, 1]; (from the sampler) a label that is not traced is of no
            class. Traced ones of no class are never drawn.
    """
    check_number("class_power", "num_classes", num_classes, least=1, whole=True)
    check_number("class_power", "q", q, least=0, most=1)

    def sampler(step, labels):
        del step
        return of_class(_counts(labels, num_classes) ** (q - 1.0), labels)

    return sampler


def progressive(num_classes: int, total_steps: int) -> Sampler:
    """From instance-balanced to class-balanced sampling, in equal steps (Kang et al., eq. 2).

    Args:
        num_classes: K.
        total_steps: steps over which the class-balanced share grows; those before the last epoch in
            the authors' program.

    Raises:
        ValueError: `total_steps` is less than 1; (from the sampler) as that of `class_power`.
    """
    check_number("progressive", "num_classes", num_classes, least=1, whole=True)
    check_number("progressive", "total_steps", total_steps, least=1)

    def sampler(step, labels):
        counts = _counts(labels, num_classes)
        present = jnp.sum(class_counts(labels, num_classes) > 0, dtype=jnp.float32)
        share = jnp.clip(step / total_steps, 0.0, 1.0)
        instance, balanced = 1 / labels.shape[0], 1 / (present * counts)
        return of_class((1 - share) * instance + share * balanced, labels)

    return sampler


def by_weights(weights: Float[Array, "N"]) -> Sampler:
    """By given weights of the examples, at least 0.

    Raises:
        ValueError: weights that are not traced are not finite, negative or all 0; (from the
            sampler) there is not one for each example.
    """
    if not isinstance(weights, jax.core.Tracer):
        check_counts("by_weights", weights, name="weights")

    def sampler(step, labels):
        del step
        check_shape("by_weights", "weights", weights, labels.shape)
        return weights

    return sampler


def sampled(method: Method, sampler: Sampler) -> Method:
    """The method, on examples drawn by a sampler; its state must have a field `step`."""
    return method._replace(sampling=lambda state, labels: sampler(state.step, labels))


def _counts(labels: Int[Array, "N"], num_classes: int) -> Float[Array, "k"]:
    check_labels("sampler", labels, num_classes)
    return jnp.maximum(class_counts(labels, num_classes), 1).astype(jnp.float32)
