"""Stage 2: example weights by optimal transport (Guo et al. 2022, Algorithm 1)."""

import dataclasses
from typing import Any

import flax.struct
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import Method, check_data, everywhere
from otrw_jax.methods.ot.passes import (
    Problem,
    Setting,
    batch_problem,
    network_step,
    ot_metrics,
    ot_objective,
    virtual_network,
)
from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.methods.ot.refresh import make_features, no_atoms, refreshed_meta, require_data
from otrw_jax.methods.ot.whole_set import make_global_weights
from otrw_jax.methods.part import Part, TrainState
from otrw_jax.models.model import Model
from otrw_jax.ot import weights
from otrw_jax.ot.closed_form import optimal_weights
from otrw_jax.ot.entropic import ot_loss_and_convergence
from otrw_jax.ot.weights import ExampleWeights


@flax.struct.dataclass
class OTReweightState(TrainState):
    """State of `ot_reweight`.

    Attributes:
        weights: of all N training examples.
        meta_features: of the meta examples (or mean inputs) at the last refresh, `[m, d]`.
        meta_labels: their classes, `[m]`.
    """

    weights: ExampleWeights
    meta_features: Float[Array, "m d"]
    meta_labels: Int[Array, "m"]


def ot_reweight(
    model: Model,
    optimizer: optax.GradientTransformation,
    weight_optimizer: optax.GradientTransformation,
    num_classes: int,
    config: OTReweighting = OTReweighting(),
    *,
    loss: PerExampleLoss = cross_entropy,
    axis_name: str | None = None,
) -> Method:
    """Learns example weights by OT and trains the network with the weighted loss.

    Each step, on a batch with ids: (a) a virtual step of the network with the present weights;
    (b) a step of the weights on the OT loss between the batch, seen with the virtual network, and
    the balanced measure; (c) a step of the network with the new weights. The forward pass of (a)
    serves (c) too.

    Args:
        model: the network; its variables after stage 1 go to `init`.
        optimizer: of the network.
        weight_optimizer: of the weights; sees one example at a time.
        num_classes: number of classes K.
        config: which of the method's readings.
        loss: `(logits [b, k], labels [b]) -> [b]`, of the training examples.
        axis_name: as of `Part`. The OT problem is that of the whole batch: features, labels and
            ids are gathered, and every device takes the same step of the weights. With
            `config.problem` "device" each device solves its own, and the entries that it learned
            are gathered.

    Raises:
        ValueError: `second_order` together with `axis_name`; from `init`, no meta set, or a class
            without meta example.
    """
    if config.second_order and axis_name is not None:
        raise ValueError("ot_reweight: second_order is for one device; leave axis_name out.")

    part = Part(model, optimizer, config.trainable, config.batch_norm, axis_name)
    of_device = config.problem == "device"
    setting = Setting(
        part,
        config,
        num_classes,
        problem_axis=None if of_device else axis_name,
        mean_of_problems=of_device and config.unit_mass,
    )
    own_axis = axis_name if of_device else None
    features = make_features(model, axis_name)
    global_weights = make_global_weights(features, config, num_classes)

    def init(key, variables, data):
        check_data(model, variables, data, num_classes)
        require_data("ot_reweight", config, num_classes, data)
        if config.initial == "uniform":
            initial = weights.uniform_weights(data.train.labels.shape[0])
        else:
            initial = weights.effective_number_example_weights(data.train.labels, num_classes)
        kept = weights.init_weights(initial, weight_optimizer)
        state = part.start(key, variables, OTReweightState, weights=kept, **no_atoms())
        return _refresh(state, data, None)

    def refresh(state, data):
        return _refresh(state, data, axis_name)

    def _refresh(state, data, axis_name):
        state = refreshed_meta(features, num_classes, config, state, data, axis_name)
        if config.weighting != "global":
            return state
        values = global_weights(state, data, axis_name)
        return state.replace(weights=state.weights.replace(values=values))

    def step(state, batch, meta):
        now = part.loss_pass(loss, batch, state.variables)
        ids = everywhere(batch.ids, setting.problem_axis)
        entries = weights.gather(state.weights, ids)
        if config.weighting == "global":  # Found at the last refresh.
            batch_weights = jnp.ones_like(entries.values) if config.sampling else entries.values
            return network_step(setting, now, state, batch_weights, meta), now.metrics

        def problem(values):
            """(a) A virtual step with these weights; the OT problem as the network then sees it."""
            batch_weights = weights.loss_weights(values, config.simplex)
            network = virtual_network(setting, now, batch_weights)
            return batch_problem(setting, network, state, batch, meta)

        # (b)
        entries, batch_weights, solved = new_weights(config, weight_optimizer, entries, problem)
        ids, entries = everywhere((ids, entries), own_axis)
        state = state.replace(weights=weights.scatter(state.weights, ids, entries))
        metrics = now.metrics | ot_metrics(*solved, config.ot, own_axis)
        # (c)
        return network_step(setting, now, state, batch_weights, meta), metrics

    return Method(
        init,
        step,
        refresh,
        sampling=(lambda state, labels: state.weights.values) if config.sampling else None,
        weights=lambda state, read, batch_size: state.weights.values,
        reads_inputs=config.reads_inputs,
    )


def new_weights(
    config: OTReweighting,
    optimizer: optax.GradientTransformation,
    entries: ExampleWeights,
    problem: Problem,
) -> tuple[ExampleWeights, Float[Array, "n"], tuple[Any, ...]]:
    """Step (b): what a batch's weights become by its OT problem.

    Args:
        config: how they are learned.
        optimizer: of the weights.
        entries: the batch's entries of the kept weights.
        problem: from the entries' values to the problem, as the virtual network sees it.

    Returns:
        The new entries, what multiplies the losses, and the OT loss before with its convergence.
    """
    if config.weighting == "closed_form":
        cost, measure = problem(entries.values)
        values = optimal_weights(cost, measure.weights, epsilon=config.ot.epsilon)
        solved = ot_loss_and_convergence(values, cost, measure.weights, ot=config.ot)
        return dataclasses.replace(entries, values=values), values, solved
    if config.from_scratch:
        entries = weights.init_weights(entries.initial, optimizer)

    def mass(values):
        return weights.mass(values, config.simplex)

    objective = ot_objective(config, problem, entries.values, mass)
    entries, solved = weights.update(entries, objective, optimizer, config.simplex, has_aux=True)
    return entries, weights.loss_weights(entries.values, config.simplex), solved
