"""The vector of example weights: kept for the whole training set, learned a batch at a time.

An update gathers the batch's entries, takes an optax step on them and scatters them back. The
optimiser's state is kept per example too, so momentum and Adam's moments (and Adam's count of
steps) are those of the example and not of whatever batch came before.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Integer, PyTree

from otrw_jax.checks import AnyArray
from otrw_jax.classes import class_counts, of_class
from otrw_jax.losses import effective_number_weights
from otrw_jax.ot.arrays import require_labels, require_shapes

Simplex = Literal["softmax", "normalize", "none"]


@flax.struct.dataclass
class ExampleWeights:
    """The weights of N training examples; a pytree of arrays.

    Attributes:
        values: what is learned, `[N]`; `mass` turns a batch of it into probabilities.
        initial: the values at the start, `[N]`; where "from scratch" goes back to.
        slots: the optimiser's state of each example, leaves `[N, ...]`.
    """

    values: Float[Array, "N"]
    initial: Float[Array, "N"]
    slots: PyTree


def init_weights(
    initial: Float[AnyArray, "N"], optimizer: optax.GradientTransformation
) -> ExampleWeights:
    """Starts the weights at `initial` with fresh optimiser state for every example."""
    require_shapes("init_weights", initial=(initial, "N"))
    initial = jnp.asarray(initial, jnp.float32)
    # Copies, since a buffer that a state holds twice, or that the caller holds, cannot be donated.
    values, initial = jnp.array(initial), jnp.array(initial)
    return ExampleWeights(values, initial, jax.vmap(optimizer.init)(initial))


def uniform_weights(count: int) -> Float[Array, "N"]:
    """Weight one for each of `count` examples."""
    return jnp.ones((count,), jnp.float32)


def effective_number_example_weights(
    labels: Integer[AnyArray, "N"], num_classes: int, beta: float = 0.9999
) -> Float[Array, "N"]:
    """Each example's class weight by the effective number (Cui et al. 2019).

    The class weights sum to K over the classes present.

    Args:
        labels: class of each training example, `[N]`.
        num_classes: number of classes.
        beta: see `effective_number_weights`.

    Raises:
        ValueError: known labels that are not whole numbers from 0 to K - 1. Traced, an example with
            another label has weight 0.
    """
    require_shapes("effective_number_example_weights", labels=(labels, "N"))
    require_labels("train", labels, least=0, most=num_classes - 1)
    counts = class_counts(labels, num_classes)
    return of_class(jnp.asarray(effective_number_weights(counts, beta), jnp.float32), labels)


def gather(weights: ExampleWeights, ids: Integer[AnyArray, "b"]) -> ExampleWeights:
    """Takes the batch's entries: an ExampleWeights whose leaves have `[b]` in place of `[N]`.

    For weights learned from scratch at every step (table 2 of the paper), pass the result's
    `initial` to `init_weights` again.
    """
    return jax.tree.map(lambda x: x[ids], weights)


def mass(values: Float[AnyArray, "b"], simplex: Simplex) -> Float[Array, "b"]:
    """The batch's entries as probabilities that sum to one.

    Args:
        values: learned values, `[b]`; non-negative for `"normalize"`.
        simplex: `"normalize"` divides by the sum; `"softmax"` and `"none"` take the softmax (with
            `"none"` the loss uses the raw values, the way of the authors' program).
    """
    if simplex == "normalize":
        total = jnp.sum(values)
        none = total <= 0  # Not of a total that is not a number, which stays one.
        return jnp.where(none, 1 / values.shape[0], values / jnp.where(none, 1.0, total))
    return jax.nn.softmax(values)


def loss_weights(values: Float[Array, "b"], simplex: Simplex) -> Float[Array, "b"]:
    """What multiplies the per-example losses: the mass, or with `"none"` the raw values."""
    return values if simplex == "none" else mass(values, simplex)


def update(
    batch: ExampleWeights,
    loss: Callable[[Float[Array, "b"]], Any],
    optimizer: optax.GradientTransformation,
    simplex: Simplex,
    has_aux: bool = False,
) -> tuple[ExampleWeights, Any]:
    """One optimiser step on a batch's entries, `w <- w - beta grad L(w)` (Algorithm 1, b).

    With `"normalize"` the step is taken on the batch's probabilities and the result is scaled
    back to the total the batch had: mass moves between the examples of the batch, none of it
    leaves, and no entry falls below zero.

    Args:
        batch: what `gather` returned.
        loss: maps values `[b]` to a scalar, through `mass`.
        optimizer: any optax transformation; it sees one example at a time, so a schedule counts
            the visits of the example and a norm is that of a single number.
        simplex: see `mass`.
        has_aux: whether `loss` returns a pair of the scalar and anything else, as in
            `jax.value_and_grad`.

    Returns:
        The updated entries and what `loss` returned before the step. A loss that is not a number
        makes all entries that.
    """
    total = jnp.sum(batch.values) if simplex == "normalize" else jnp.ones_like(batch.values[0])
    scale = jnp.where(total <= 0, 1.0, total)
    values = batch.values / scale
    found, gradient = jax.value_and_grad(loss, has_aux=has_aux)(values)
    value = found[0] if has_aux else found
    step, slots = jax.vmap(optimizer.update)(gradient, batch.slots, values)
    values = optax.apply_updates(values, step)
    if simplex == "normalize":
        values = mass(jnp.maximum(values, 0.0), simplex)
    values = jnp.where(jnp.isnan(value), jnp.nan, values * scale)
    return dataclasses.replace(batch, values=values, slots=slots), found


def scatter(
    weights: ExampleWeights, ids: Integer[AnyArray, "b"], batch: ExampleWeights
) -> ExampleWeights:
    """Writes a batch's entries back. The ids of a batch must differ from one another."""
    return jax.tree.map(lambda x, y: x.at[ids].set(y), weights, batch)
