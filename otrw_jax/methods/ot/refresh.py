"""What learning weights by OT reads of the data outside of a step: the atoms' features."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PyTree

from otrw_jax.methods.base import Examples, TrainingData, present
from otrw_jax.methods.ot.problem import OTProblem, atoms_before_network
from otrw_jax.methods.reading import in_chunks
from otrw_jax.models.model import Model
from otrw_jax.ot import measures


class Features(NamedTuple):
    """Compiled passes of a network that read features of inputs.

    Attributes:
        evaluation: `(variables, inputs) -> z`, in evaluation mode.
        training: `(variables, inputs) -> (z, new_state)`, in training mode.
        training_alone: the same outside of the axis that the network's moments are taken over.
    """

    evaluation: Callable[[PyTree, PyTree], Float[Array, "b d"]]
    training: Callable[[PyTree, PyTree], tuple[Float[Array, "b d"], PyTree]]
    training_alone: Callable[[PyTree, PyTree], tuple[Float[Array, "b d"], PyTree]]


def make_features(model: Model, axis_name: str | None) -> Features:
    """Compiles the reading of features; keep the result."""

    def training(variables, inputs):
        return model.features(variables, inputs, True)

    def training_alone(variables, inputs):
        if axis_name is None:
            return training(variables, inputs)
        # An axis of one, which the network reduces over.
        mapped = jax.vmap(training, in_axes=None, axis_name=axis_name, axis_size=1)
        return jax.tree.map(lambda x: x[0], mapped(variables, inputs))

    evaluation = jax.jit(partial(eval_features, model))
    return Features(evaluation, jax.jit(training), jax.jit(training_alone))


def eval_features(model: Model, variables: PyTree, inputs: PyTree) -> Float[Array, "b d"]:
    """The features of inputs in evaluation mode."""
    return model.features(variables, inputs, False)[0]


def require_data(method: str, config: OTProblem, num_classes: int, data: TrainingData) -> None:
    """Raises ValueError where the data lack what a configuration reads."""
    if data.meta is not None:
        measures.require_every_class(data.meta.labels, num_classes)
    elif config.measure != "dynamic" or config.meta_cross_entropy:
        raise ValueError(
            f"{method} needs a meta set: take meta_per_class of 1 or more (10 in the paper)."
        )
    if config.reads_inputs and data.train.inputs is None:
        raise ValueError(
            f"{method}: this configuration reads the features of the whole training set; "
            "give data.train.inputs."
        )


def no_atoms() -> dict[str, Array]:
    """The fields of a state that `refreshed_meta` fills."""
    return {"meta_features": jnp.zeros((0, 0)), "meta_labels": jnp.zeros((0,), jnp.int32)}


def refreshed_meta(
    features: Features,
    num_classes: int,
    config: OTProblem,
    state: Any,
    data: TrainingData,
    axis_name: str | None,
) -> Any:
    """The state with its `meta_features` and `meta_labels` found anew.

    With `config.meta_batch_norm` the running statistics of `state.variables` move too.

    Args:
        features: of `make_features`.
        num_classes: number of classes K.
        config: names the measure.
        state: has fields `step`, `key`, `variables`; the dynamic measure is drawn by the first two.
        data: the same on all devices.
        axis_name: mapped axis of a compiled function that this is part of, or None.
    """
    meta = data.meta
    if config.measure == "dynamic":
        key = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)
        labels = jnp.asarray(data.train.labels)
        ids = measures.balanced_sample(key, labels, num_classes, config.measure_size)
        meta = Examples(jax.tree.map(lambda x: x[ids], data.train.inputs), labels[ids])
    meta = atoms_before_network(config, present(meta), num_classes)
    mapped = axis_name is not None
    if config.meta_batch_norm:
        training = features.training if mapped else features.training_alone
        z, after = training(state.variables, meta.inputs)
        state = state.replace(variables={**state.variables, "state": after})
    else:
        of_inputs = partial(features.evaluation, state.variables)
        z = in_chunks(of_inputs, meta.inputs, compiled=mapped)
    return state.replace(
        meta_features=z,
        meta_labels=jnp.array(meta.labels, jnp.int32),  # A copy, so that it can be donated.
    )
