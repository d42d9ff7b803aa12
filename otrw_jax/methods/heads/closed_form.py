"""Heads that are found without a gradient step (Kang et al., ICLR 2020, section 4)."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PyTree

from otrw_jax.checks import check_number
from otrw_jax.classes import class_counts, class_ids
from otrw_jax.losses import wide
from otrw_jax.methods.base import Method, TrainingData
from otrw_jax.methods.reading import ROWS, evaluated_features, in_chunks
from otrw_jax.methods.wrappers.corrected import without_training
from otrw_jax.models.heads import kernel_of, unit
from otrw_jax.models.model import Model

TAUS = tuple(tenths / 10 for tenths in range(21))
"""0, 0.1, …, 2: the exponents that the program of Kang et al. goes through."""

# Added to the logit of a class that is never to be predicted; finite, so that a softmax is.
_NEVER = -1e30


def tau_normalised(
    model: Model,
    num_classes: int,
    tau: float | None = None,
    grid: Sequence[float] = TAUS,
    *,
    axis_name: str | None = None,
) -> Method:
    """The trained class vectors over a power of their length, W_c / ‖W_c‖^τ, without bias.

    Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020.
    τ = 0 is the trained head without its bias, τ = 1 makes all class vectors of one length. The
    new head is `{"kernel": [d k], "tau": []}`.

    Args:
        model: the network; its head is of one layer, and its trained variables go to `init`.
        num_classes: K.
        tau: τ, or None for the one of the grid with the best balanced accuracy on the meta set,
            the smallest of those where several are best.
        grid: where τ is looked for.
        axis_name: mapped axis over which the batch is spread.

    Raises:
        ValueError: τ, or one of the grid, is not finite, or the grid is empty; from `init`, no meta
            set to choose τ by, or a head without exactly one kernel.
    """
    for one in grid if tau is None else [tau]:
        check_number("tau_normalised", "tau", one)
    if not len(grid):
        raise ValueError("tau_normalised: the grid is empty; give exponents to choose from.")
    features = evaluated_features(model)

    def accuracy(kernel, z, labels, tau):
        kernel = _over_length(kernel, tau)
        # Neither the logits of all of them at once nor a matrix [k k] of many classes.
        predictions = in_chunks(lambda z: jnp.argmax(z @ kernel, axis=-1), z, ROWS, compiled=True)
        labels = class_ids(labels, num_classes)
        right = (predictions == labels).astype(jnp.int32)
        right = jax.ops.segment_sum(right, labels, num_classes)
        return jnp.nanmean(right / class_counts(labels, num_classes))

    @jax.jit
    def best(kernel, z, labels):
        taus = jnp.asarray(sorted(grid), kernel.dtype)
        found = taus[jnp.argmax(jax.lax.map(partial(accuracy, kernel, z, labels), taus))]
        return jnp.where(jnp.isfinite(z).all(), found, jnp.nan)

    def head_of(variables: PyTree, data: TrainingData) -> dict[str, Array]:
        kernel = kernel_of(variables["params"]["head"])
        if tau is not None:
            chosen = jnp.asarray(tau, kernel.dtype)
        elif data.meta is None:
            raise ValueError(
                "tau_normalised: tau is chosen on the meta set and there is none; give tau, or "
                "take meta_per_class of 1 or more."
            )
        else:
            chosen = best(kernel, features(variables, data.meta), jnp.asarray(data.meta.labels))
        return {"kernel": _over_length(kernel, chosen), "tau": chosen}

    def logits(head, z):
        return z @ head["kernel"]

    return with_head(model, num_classes, head_of, logits, axis_name)


def nearest_class_mean(model: Model, num_classes: int, *, axis_name: str | None = None) -> Method:
    """Cosines of the features and the mean features of each class of the training set.

    Kang et al., ICLR 2020, with the cosine of the two similarities they name. The features are
    those in evaluation mode, of inputs without augmentation. A class without examples is never
    predicted. The logits are cosines: their softmax is nearly flat, and no confidence. The new
    head is `{"kernel": [d k], "bias": [k]}`.

    Args:
        model: the network.
        num_classes: K.
        axis_name: mapped axis over which the batch is spread.

    Raises:
        ValueError: from `init`, the inputs of the training set are not at hand.
    """
    features = evaluated_features(model)

    def head_of(variables: PyTree, data: TrainingData) -> dict[str, Array]:
        if data.train.inputs is None:
            raise ValueError(
                "nearest_class_mean reads the features of the whole training set; give "
                "data.train.inputs."
            )
        labels = jnp.asarray(data.train.labels)
        # The sum has the direction of the mean.
        total = jax.ops.segment_sum(wide(features(variables, data.train)), labels, num_classes)
        counts = jnp.bincount(labels, length=num_classes)
        bias = jnp.where(counts > 0, 0.0, _NEVER).astype(total.dtype)
        return {"kernel": unit(total, axis=-1).T, "bias": bias}

    def logits(head, z):
        return unit(z, axis=-1) @ head["kernel"] + head["bias"][None, :]

    return with_head(model, num_classes, head_of, logits, axis_name)._replace(reads_inputs=True)


def with_head(
    model: Model,
    num_classes: int,
    head_of: Callable[[PyTree, TrainingData], PyTree],
    logits: Callable[[PyTree, Float[Array, "b d"]], Float[Array, "b k"]],
    axis_name: str | None,
) -> Method:
    """The network with another last layer, found at the start, as a method that trains nothing.

    Args:
        model: the network.
        num_classes: K.
        head_of: `(variables, data) -> head_params`.
        logits: `Method.logits` of that head.
        axis_name: mapped axis over which the batch is spread.
    """

    def variables_of(variables, data):
        params = {**variables["params"], "head": head_of(variables, data)}
        return {**variables, "params": params}

    return without_training(
        model, variables_of, num_classes=num_classes, logits=logits, axis_name=axis_name
    )


def _over_length(kernel: Float[Array, "d k"], tau: Float[Array, ""]) -> Float[Array, "d k"]:
    """Columns over a power of their length; zero columns stay zero."""
    length = jnp.linalg.norm(kernel, axis=0, keepdims=True)
    return kernel / jnp.where(length == 0, 1.0, length) ** tau
