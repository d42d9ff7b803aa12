"""Stage 2: example weights by optimal transport (Guo et al. 2022, Algorithm 1)."""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import Examples, Method, check_data, split_params
from otrw_jax.methods.ot.passes import (
    devices,
    everywhere,
    make_features,
    ot_metrics,
    ot_step,
    reads_inputs,
    refreshed_meta,
    require_data,
)
from otrw_jax.methods.ot.problem import OTReweighting, cost_of, features_in_chunks, measure_of
from otrw_jax.models.model import Model
from otrw_jax.ot import weights
from otrw_jax.ot.closed_form import optimal_weights, optimal_weights_by_rows
from otrw_jax.ot.entropic import ot_loss_and_convergence
from otrw_jax.ot.weights import ExampleWeights


@flax.struct.dataclass
class OTReweightState:
    """State of `ot_reweight`.

    Attributes:
        step: steps taken.
        key: base key; each step folds its number in.
        variables: the network's.
        opt_state: the optimiser's, of the trained parameters.
        weights: of all N training examples.
        meta_features: of the meta examples (or mean inputs) at the last refresh, `[m, d]`.
        meta_labels: their classes, `[m]`.
    """

    step: Int[Array, ""]
    key: Array
    variables: PyTree
    opt_state: PyTree
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
        axis_name: mapped axis over which the batch is spread. The OT problem is that of the
            whole batch: features, labels and ids are gathered, and every device takes the same
            step of the weights. With `config.problem` "device" each device solves its own, and
            the entries that it learned are gathered.

    Raises:
        ValueError: `second_order` together with `axis_name`; from `init`, no meta set, or a class
            without meta example.
    """
    if config.second_order and axis_name is not None:
        raise ValueError("ot_reweight: second_order is for one device; leave axis_name out.")

    passes = ot_step(model, optimizer, num_classes, config, loss, axis_name)
    features = make_features(model, axis_name)
    # Of the devices that share an OT problem.
    problem_axis = axis_name if config.problem == "batch" else None

    def init(key, variables, data):
        check_data(model, variables, data, num_classes)
        require_data("ot_reweight", config, num_classes, data)
        trained, _ = split_params(variables["params"], config.trainable)
        if config.initial == "uniform":
            initial = weights.uniform_weights(data.train.labels.shape[0])
        else:
            initial = weights.effective_number_example_weights(data.train.labels, num_classes)
        state = OTReweightState(
            step=jnp.zeros((), jnp.int32),
            key=key,
            variables=variables,
            opt_state=optimizer.init(trained),
            weights=weights.init_weights(initial, weight_optimizer),
            meta_features=jnp.zeros((0, 0)),
            meta_labels=jnp.zeros((0,), jnp.int32),
        )
        return _refresh(state, data, None)

    def refresh(state, data):
        return _refresh(state, data, axis_name)

    def _refresh(state, data, axis_name):
        state = refreshed_meta(features, num_classes, config, state, data, axis_name)
        if config.weighting != "global":
            return state
        train, mask = _own_rows(data.train, axis_name)
        z = None
        if config.uses_features:
            of_inputs = partial(features.evaluation, state.variables)
            z = features_in_chunks(of_inputs, train.inputs, compiled=axis_name is not None)
        own = compiled_weights(state, z, train.labels, mask, axis_name)
        values = everywhere(own, axis_name)[: data.train.labels.shape[0]]
        return state.replace(weights=state.weights.replace(values=values * values.shape[0]))

    def closed_form(state, z, labels, mask, axis_name):
        """The optimal weights of this device's rows, with all others', for the measure of now."""
        meta = state.meta_features, state.meta_labels
        measure = measure_of(config, state.key, *meta, num_classes)

        def cost_of_rows(rows):
            return cost_of(config, None if z is None else z[rows], labels[rows], measure)

        return optimal_weights_by_rows(
            cost_of_rows,
            labels.shape[0],
            measure.weights,
            epsilon=config.ot.epsilon,
            mask=mask,
            axis_name=axis_name,
        )

    compiled_weights = jax.jit(closed_form, static_argnames="axis_name")

    def step(state, batch, meta):
        now = passes(state, batch, meta)
        metrics = now.metrics

        def ot_problem(values):
            return now.ot_problem(weights.loss_weights(values, config.simplex))

        ids = everywhere(batch.ids, problem_axis)
        entries = weights.gather(state.weights, ids)
        if config.weighting == "global":
            batch_weights = jnp.ones_like(entries.values) if config.sampling else entries.values
        else:
            entries, batch_weights, solved = _reweight(entries, ot_problem)
            own_axis = None if problem_axis == axis_name else axis_name
            ids, entries = jax.tree.map(lambda x: everywhere(x, own_axis), (ids, entries))
            state = state.replace(weights=weights.scatter(state.weights, ids, entries))
            metrics |= ot_metrics(*solved, config.ot, own_axis)

        return now.network_step(state, batch_weights), metrics

    def _reweight(entries, ot_problem):
        """Step (b): the batch's new entries, weights of its losses, OT loss before, convergence."""
        if config.weighting == "closed_form":
            cost, measure = ot_problem(entries.values)
            values = optimal_weights(cost, measure.weights, epsilon=config.ot.epsilon)
            solved = ot_loss_and_convergence(values, cost, measure.weights, ot=config.ot)
            return entries.replace(values=values), values, solved
        if config.from_scratch:
            entries = weights.init_weights(entries.initial, weight_optimizer)
        fixed = None if config.second_order else ot_problem(entries.values)

        def objective(values):
            cost, measure = ot_problem(values) if fixed is None else fixed
            mass = weights.mass(values, config.simplex)
            return ot_loss_and_convergence(mass, cost, measure.weights, ot=config.ot)

        entries, solved = weights.update(
            entries, objective, weight_optimizer, config.simplex, has_aux=True
        )
        return entries, weights.loss_weights(entries.values, config.simplex), solved

    sampling = (lambda state, labels: state.weights.values) if config.sampling else None
    return Method(init, step, refresh, sampling, reads_inputs=reads_inputs(config))


def _own_rows(examples: Examples, axis_name: str | None) -> tuple[Examples, Float[Array, "n"]]:
    """This device's share of examples that all devices hold, padded, and a mask of the padding."""
    count = examples.labels.shape[0]
    share = -(-count // devices(axis_name))
    first = 0 if axis_name is None else share * jax.lax.axis_index(axis_name)
    ids = first + jnp.arange(share)
    rows = jnp.minimum(ids, count - 1)
    own = examples if axis_name is None else jax.tree.map(lambda x: x[rows], examples)
    return Examples(own.inputs, jnp.asarray(own.labels)), (ids < count).astype(jnp.float32)
