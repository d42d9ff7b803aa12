"""What the ways of learning weights by OT share: the data they need, and the passes of a step."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, PyTree

from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import (
    Batch,
    Examples,
    Metrics,
    TrainingData,
    classification_metrics,
    global_sum,
    merge_params,
    split_params,
    trains_backbone,
)
from otrw_jax.methods.meta_learning import descend
from otrw_jax.methods.ot_problem import (
    OTReweighting,
    atoms_before_network,
    cost_of,
    features_in_chunks,
    measure_of,
)
from otrw_jax.methods.virtual_step import virtual_step
from otrw_jax.model import Model
from otrw_jax.ot import measures
from otrw_jax.ot.measures import Measure
from otrw_jax.ot.transport import Convergence, EntropicOT


class OTStep(NamedTuple):
    """The loss pass over a batch, and what is made of it.

    Attributes:
        features: z of the pass, of this device's examples, `[b, d]`.
        losses: of this device's examples, `[b]`.
        metrics: of the batch.
        ot_problem: from the weights that multiply the losses, `[n]`, of all examples of the OT
            problem, to their cost `[n, m]` and the measure Q, seen with the virtual network where
            there is one (step a).
        network_step: `(state, weights [n]) -> state`, a step of the network (step c).
    """

    features: Float[Array, "b d"]
    losses: Float[Array, "b"]
    metrics: Metrics
    ot_problem: Callable[[Float[Array, "n"]], tuple[Float[Array, "n m"], Measure]]
    network_step: Callable[[Any, Float[Array, "n"]], Any]


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


def require_data(method: str, config: OTReweighting, num_classes: int, data: TrainingData) -> None:
    """Raises ValueError where the data lack what a configuration reads."""
    if data.meta is not None:
        measures.require_every_class(data.meta.labels, num_classes)
    elif config.measure != "dynamic" or config.meta_cross_entropy:
        raise ValueError(
            f"{method} needs a meta set: take meta_per_class of 1 or more (10 in the paper)."
        )
    whole_set = config.measure == "dynamic" or (
        config.weighting == "global" and config.uses_features
    )
    if whole_set and data.train.inputs is None:
        raise ValueError(
            f"{method}: this configuration reads the features of the whole training set; "
            "give data.train.inputs."
        )


def refreshed_meta(
    features: Features,
    num_classes: int,
    config: OTReweighting,
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
    meta = atoms_before_network(config, meta, num_classes)
    mapped = axis_name is not None
    if config.meta_batch_norm:
        training = features.training if mapped else features.training_alone
        z, after = training(state.variables, meta.inputs)
        state = state.replace(variables={**state.variables, "state": after})
    else:
        of_inputs = partial(features.evaluation, state.variables)
        z = features_in_chunks(of_inputs, meta.inputs, compiled=mapped)
    return state.replace(
        meta_features=z,
        meta_labels=jnp.array(meta.labels, jnp.int32),  # A copy, so that it can be donated.
    )


def ot_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    num_classes: int,
    config: OTReweighting,
    loss: PerExampleLoss,
    axis_name: str | None,
) -> Callable[[Any, Batch, Examples | None], OTStep]:
    """`(state, batch, meta) -> OTStep`, for states with the fields that the passes read.

    These are `step`, `key`, `variables`, `opt_state`, `meta_features` and `meta_labels`. The
    arguments are those of `ot_reweight`.
    """
    # Of the devices that share an OT problem.
    problem_axis = axis_name if config.problem == "batch" else None

    def passes(state, batch, meta):
        trained, frozen = split_params(state.variables["params"], config.trainable)

        def variables_of(trained):
            params = merge_params(trained, frozen)
            return {"params": params, "state": state.variables["state"]}

        def loss_pass(trained):
            variables = variables_of(trained)
            z, new_state = model.features(variables, batch.inputs, config.batch_norm)
            logits = model.logits(variables["params"]["head"], z)
            return loss(logits, batch.labels), (z, logits, new_state)

        losses, pullback, (z, logits, new_state) = jax.vjp(loss_pass, trained, has_aux=True)
        metrics = classification_metrics(losses, logits, batch.labels, axis_name)

        def weighted_gradient(batch_weights):
            """Gradient of the batch's weighted loss, from the one forward pass."""
            own = local(batch_weights, problem_axis)
            if config.reduction == "mean":
                own = own / metrics["loss"][1]
            if config.problem == "device" and config.unit_mass:
                own = own / devices(axis_name)  # The mean over the devices' problems.
            return global_sum(pullback(own.astype(losses.dtype))[0], axis_name)

        def ot_problem(batch_weights):
            at, features = trained, z
            if config.features == "virtual" and config.uses_features and trains_backbone(trained):
                gradient = weighted_gradient(batch_weights)
                at = virtual_step(trained, gradient, config.virtual_learning_rate)
                features = None
            elif config.features != "loss_pass" and config.batch_norm:
                features = None
            return batch_problem(variables_of(at), features, state, batch, meta)

        def network_step(state, batch_weights):
            gradient, model_state = weighted_gradient(batch_weights), new_state
            if config.meta_cross_entropy:

                def meta_objective(trained):
                    variables = {**variables_of(trained), "state": new_state}
                    z, after = model.features(variables, meta.inputs, config.batch_norm)
                    logits = model.logits(variables["params"]["head"], z)
                    mean = jnp.mean(cross_entropy(logits, meta.labels))
                    return config.meta_cross_entropy * mean, after

                meta_gradient, model_state = jax.grad(meta_objective, has_aux=True)(trained)
                gradient = jax.tree.map(jnp.add, gradient, meta_gradient)
            return descend(optimizer, state, gradient, trained, frozen, model_state)

        return OTStep(z, losses, metrics, ot_problem, network_step)

    def batch_problem(variables, features, state, batch, meta):
        key = jax.random.fold_in(jax.random.fold_in(state.key, 0), state.step)
        labels = everywhere(batch.labels, problem_axis)
        meta_features, meta_labels = state.meta_features, state.meta_labels
        if config.uses_features:
            if config.meta_features == "step":
                examples = atoms_before_network(config, meta, num_classes)
                meta_features = eval_features(model, variables, examples.inputs)
                meta_labels = examples.labels
            if features is None:
                features = eval_features(model, variables, batch.inputs)
            features = everywhere(features, problem_axis)
        measure = measure_of(config, key, meta_features, meta_labels, num_classes)
        return cost_of(config, features, labels, measure), measure

    return passes


def ot_metrics(
    value: Float[Array, ""], convergence: Convergence, ot: EntropicOT, axis_name: str | None = None
) -> Metrics:
    """The OT loss of a step's problem, its marginal error, and whether it did not converge.

    A threshold of zero asks for a number of iterations, not for convergence, and has no such share.

    Args:
        value: the loss.
        convergence: how far the solver came.
        ot: how it was solved.
        axis_name: mapped axis of devices that have a problem each, for the mean over them.
    """
    metrics = {"ot_loss": value, "ot_marginal_error": convergence.marginal_error}
    if ot.threshold > 0:
        metrics["ot_unconverged"] = jnp.where(convergence.converged, 0.0, 1.0)
    if axis_name is not None:
        metrics = jax.lax.pmean(metrics, axis_name)
    return {name: (mean, jnp.ones_like(mean)) for name, mean in metrics.items()}


def eval_features(model: Model, variables: PyTree, inputs: PyTree) -> Float[Array, "b d"]:
    """The features of inputs in evaluation mode."""
    return model.features(variables, inputs, False)[0]


def devices(axis_name: str | None) -> int:
    """How many share the axis."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def everywhere(x: Array, axis_name: str | None) -> Array:
    """The rows of all devices, in the order of the devices."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def local(x: Array, axis_name: str | None) -> Array:
    """This device's rows of what `everywhere` put together."""
    if axis_name is None:
        return x
    size = x.shape[0] // jax.lax.axis_size(axis_name)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis_name) * size, size)
