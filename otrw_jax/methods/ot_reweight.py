"""Stage 2: example weights by optimal transport (Guo et al. 2022, Algorithm 1)."""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import (
    Examples,
    Method,
    classification_metrics,
    global_sum,
    merge_params,
    split_params,
    trains_backbone,
)
from otrw_jax.methods.ot_problem import (
    OTReweighting,
    atoms_before_network,
    cost_of,
    features_in_chunks,
    measure_of,
)
from otrw_jax.model import Model
from otrw_jax.ot import measures, weights
from otrw_jax.ot.closed_form import optimal_weights, optimal_weights_by_rows
from otrw_jax.ot.transport import ot_loss
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

    def eval_features(variables, inputs):
        return model.features(variables, inputs, False)[0]

    compiled_features = jax.jit(eval_features)
    # Of the devices that share an OT problem.
    problem_axis = axis_name if config.problem == "batch" else None

    def init(key, variables, data):
        if data.meta is not None:
            measures.require_every_class(data.meta.labels, num_classes)
        elif config.measure != "dynamic" or config.meta_cross_entropy:
            raise ValueError(
                "ot_reweight needs a meta set: take meta_per_class of 1 or more (10 in the paper)."
            )
        whole_set = config.measure == "dynamic" or (
            config.weighting == "global" and config.uses_features
        )
        if whole_set and data.train.inputs is None:
            raise ValueError(
                "ot_reweight: this configuration reads the features of the whole training set; "
                "give data.train.inputs."
            )
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
        meta = data.meta
        if config.measure == "dynamic":
            key = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)
            labels = jnp.asarray(data.train.labels)
            ids = measures.balanced_sample(key, labels, num_classes, config.measure_size)
            meta = Examples(jax.tree.map(lambda x: x[ids], data.train.inputs), labels[ids])
        meta = atoms_before_network(config, meta, num_classes)

        def features(inputs):
            function = partial(compiled_features, state.variables)
            return features_in_chunks(function, inputs, compiled=axis_name is not None)

        state = state.replace(
            meta_features=features(meta.inputs),
            meta_labels=jnp.array(meta.labels, jnp.int32),  # A copy, so that it can be donated.
        )
        if config.weighting != "global":
            return state
        train, mask = _own_rows(data.train, axis_name)
        z = features(train.inputs) if config.uses_features else None
        own = compiled_weights(state, z, train.labels, mask, axis_name)
        values = _everywhere(own, axis_name)[: data.train.labels.shape[0]]
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
            own = _local(batch_weights, problem_axis)
            if config.reduction == "mean":
                own = own / metrics["loss"][1]
            if config.problem == "device" and config.unit_mass:
                own = own / _devices(axis_name)  # The mean over the devices' problems.
            return global_sum(pullback(own)[0], axis_name)

        def ot_problem(values):
            """Cost and measure of the batch, seen with the virtual network where there is one."""
            at, features = trained, z
            if config.features == "virtual" and config.uses_features and trains_backbone(trained):
                gradient = weighted_gradient(weights.loss_weights(values, config.simplex))
                rate = config.virtual_learning_rate
                at, features = jax.tree.map(lambda p, g: p - rate * g, trained, gradient), None
            elif config.features != "loss_pass" and config.batch_norm:
                features = None
            return _batch_problem(variables_of(at), features, state, batch, meta)

        ids = _everywhere(batch.ids, problem_axis)
        entries = weights.gather(state.weights, ids)
        if config.weighting == "global":
            batch_weights = jnp.ones_like(entries.values) if config.sampling else entries.values
        else:
            entries, batch_weights, value = _reweight(entries, ot_problem)
            if problem_axis != axis_name:
                ids, entries = jax.tree.map(lambda x: _everywhere(x, axis_name), (ids, entries))
                value = jax.lax.pmean(value, axis_name)
            state = state.replace(weights=weights.scatter(state.weights, ids, entries))
            metrics["ot_loss"] = (value, jnp.ones(()))

        gradient = weighted_gradient(batch_weights)
        if config.meta_cross_entropy:

            def meta_objective(trained):
                variables = {**variables_of(trained), "state": new_state}
                z, after = model.features(variables, meta.inputs, config.batch_norm)
                logits = model.logits(variables["params"]["head"], z)
                return config.meta_cross_entropy * jnp.mean(
                    cross_entropy(logits, meta.labels)
                ), after

            meta_gradient, new_state = jax.grad(meta_objective, has_aux=True)(trained)
            gradient = jax.tree.map(jnp.add, gradient, meta_gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, trained)
        params = merge_params(optax.apply_updates(trained, updates), frozen)
        state = state.replace(
            step=state.step + 1,
            variables={"params": params, "state": new_state},
            opt_state=opt_state,
        )
        return state, metrics

    def _batch_problem(variables, features, state, batch, meta):
        key = jax.random.fold_in(jax.random.fold_in(state.key, 0), state.step)
        labels = _everywhere(batch.labels, problem_axis)
        meta_features, meta_labels = state.meta_features, state.meta_labels
        if config.uses_features:
            if config.meta_features == "step":
                examples = atoms_before_network(config, meta, num_classes)
                meta_features = eval_features(variables, examples.inputs)
                meta_labels = examples.labels
            if features is None:
                features = eval_features(variables, batch.inputs)
            features = _everywhere(features, problem_axis)
        measure = measure_of(config, key, meta_features, meta_labels, num_classes)
        return cost_of(config, features, labels, measure), measure

    def _reweight(entries, ot_problem):
        """Step (b): the batch's new entries, the weights of its losses, the OT loss before."""
        if config.weighting == "closed_form":
            cost, measure = ot_problem(entries.values)
            values = optimal_weights(cost, measure.weights, epsilon=config.ot.epsilon)
            value = ot_loss(values, cost, measure.weights, ot=config.ot)
            return entries.replace(values=values), values, value
        if config.from_scratch:
            entries = weights.init_weights(entries.initial, weight_optimizer)
        fixed = None if config.second_order else ot_problem(entries.values)

        def objective(values):
            cost, measure = ot_problem(values) if fixed is None else fixed
            return ot_loss(
                weights.mass(values, config.simplex), cost, measure.weights, ot=config.ot
            )

        entries, value = weights.update(entries, objective, weight_optimizer, config.simplex)
        return entries, weights.loss_weights(entries.values, config.simplex), value

    sampling = (lambda state, labels: state.weights.values) if config.sampling else None
    return Method(init, step, refresh, sampling)


def _devices(axis_name: str | None) -> int:
    """How many share the axis."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def _everywhere(x: Array, axis_name: str | None) -> Array:
    """The rows of all devices, in the order of the devices."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def _own_rows(examples: Examples, axis_name: str | None) -> tuple[Examples, Float[Array, "n"]]:
    """This device's share of examples that all devices hold, padded, and a mask of the padding."""
    count = examples.labels.shape[0]
    share = -(-count // _devices(axis_name))
    first = 0 if axis_name is None else share * jax.lax.axis_index(axis_name)
    ids = first + jnp.arange(share)
    rows = jnp.minimum(ids, count - 1)
    own = examples if axis_name is None else jax.tree.map(lambda x: x[rows], examples)
    return Examples(own.inputs, jnp.asarray(own.labels)), (ids < count).astype(jnp.float32)


def _local(x: Array, axis_name: str | None) -> Array:
    """This device's rows of what `_everywhere` put together."""
    if axis_name is None:
        return x
    size = x.shape[0] // jax.lax.axis_size(axis_name)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis_name) * size, size)
