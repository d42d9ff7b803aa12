"""Stage 2 with a weight net: example weights amortised by a net (Guo et al. 2022, Algorithm 2)."""

from functools import partial
from typing import Literal, get_args

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.classes import class_ids
from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import Method, check_data, everywhere
from otrw_jax.methods.ot.passes import (
    Setting,
    batch_problem,
    network_step,
    ot_metrics,
    ot_objective,
    virtual_network,
)
from otrw_jax.methods.ot.problem import OTProblem, problem_alone
from otrw_jax.methods.ot.refresh import make_features, no_atoms, refreshed_meta, require_data
from otrw_jax.methods.part import Part, TrainState
from otrw_jax.models.model import Model

NetInput = Literal["features", "label", "loss", "features_and_label"]

ORDERS = 10
"""Random orders of the training set over which `Method.weights` averages."""


@flax.struct.dataclass
class OTWeightNetState(TrainState):
    """State of `ot_weight_net`.

    Attributes:
        net_params: Ω, the parameters of the weight net.
        net_opt_state: the state of the net's optimiser.
        meta_features: of the meta examples (or mean inputs) at the last refresh, `[m, d]`.
        meta_labels: their classes, `[m]`.
    """

    net_params: PyTree
    net_opt_state: PyTree
    meta_features: Float[Array, "m d"]
    meta_labels: Int[Array, "m"]


def ot_weight_net(
    model: Model,
    optimizer: optax.GradientTransformation,
    net: nn.Module,
    net_optimizer: optax.GradientTransformation,
    num_classes: int,
    config: OTProblem = OTProblem(),
    *,
    net_input: NetInput = "features",
    loss: PerExampleLoss = cross_entropy,
    axis_name: str | None = None,
) -> Method:
    """Learns a net S(z; Ω) that gives example weights, by OT, and trains the network with them.

    Each step: (a) a virtual step of the network with the weights of the present net; (b) a step
    of Ω on the OT loss between the batch, seen with the virtual network, and the balanced measure;
    (c) a step of the network with the weights of the new net. The net sees the features (or
    losses) of the loss pass, at the present network, in (a) and in (c); nothing is differentiated
    through its input. Its weights are those of the batch, which sum to one.

    Guo et al. 2022, Algorithm 2 and appendices A, C and E.

    Args:
        model: the network; its variables after stage 1 go to `init`.
        optimizer: of the network.
        net: a module from inputs `[b, d]` to weights `[b]` on the simplex, with parameters only,
            such as those of `otrw_jax.ot.nets`.
        net_optimizer: of the net; SGD with learning rate 4e-2 in the paper's text experiments.
        num_classes: number of classes K.
        config: which of the method's readings. An `OTReweighting` serves too, if its fields of
            kept weights are at their defaults.
        net_input: what the net sees of an example: its features z, its one-hot label, its loss,
            or its features followed by its one-hot label.
        loss: `(logits [b, k], labels [b]) -> [b]`, of the training examples.
        axis_name: as of `Part`. The OT problem and the net's batch are the whole batch, and every
            device takes the same step of the net.

    Returns:
        The method. The weight of an example depends on its batch: in `Method.weights` it is the
        mean over the batches of `ORDERS` random orders, times the batch size, so that their mean is
        about one. An order's last batch is filled from its start, so that each example is in one.

    Raises:
        ValueError: a choice of `config` that concerns kept weights, `second_order` together with
            `axis_name`, or an unknown `net_input`; from `init`, no meta set, or a class without
            meta example.
    """
    config = problem_alone("ot_weight_net", config)
    _require_choices(config, net_input, axis_name)
    part = Part(model, optimizer, config.trainable, config.batch_norm, axis_name)
    setting = Setting(part, config, num_classes, problem_axis=axis_name)
    features = make_features(model, axis_name)

    def init(key, variables, data):
        check_data(model, variables, data, num_classes)
        require_data("ot_weight_net", config, num_classes, data)
        examples = data.train if data.meta is None else data.meta
        z = jax.eval_shape(features.evaluation, variables, examples.inputs)
        width = {
            "features": z.shape[-1],
            "label": num_classes,
            "loss": 1,
            "features_and_label": z.shape[-1] + num_classes,
        }
        net_key, key = jax.random.split(key)
        net_params = net.init(net_key, jnp.zeros((2, width[net_input])))["params"]
        own = {"net_params": net_params, "net_opt_state": net_optimizer.init(net_params)}
        state = part.start(key, variables, OTWeightNetState, **own, **no_atoms())
        return refreshed_meta(features, num_classes, config, state, data, None)

    def refresh(state, data):
        return refreshed_meta(features, num_classes, config, state, data, axis_name)

    def step(state, batch, meta):
        now = part.loss_pass(loss, batch, state.variables)
        own = net_inputs(net_input, now.features, batch.labels, now.losses, num_classes)
        inputs = everywhere(own, axis_name)

        def weights_of(net_params):
            return net.apply({"params": net_params}, inputs)

        def problem(weights):
            """(a) A virtual step with these weights; the OT problem as the network then sees it."""
            network = virtual_network(setting, now, weights)
            return batch_problem(setting, network, state, batch, meta)

        # (b) The loss's gradient is known up to a constant, which the net's simplex takes out.
        weights, pullback = jax.vjp(weights_of, state.net_params)
        objective = ot_objective(config, problem, weights)
        solved, slope = jax.value_and_grad(objective, has_aux=True)(weights)
        updates, net_opt_state = net_optimizer.update(
            pullback(slope)[0], state.net_opt_state, state.net_params
        )
        net_params = optax.apply_updates(state.net_params, updates)
        # (c)
        state = network_step(setting, now, state, weights_of(net_params), meta)
        state = state.replace(net_params=net_params, net_opt_state=net_opt_state)
        return state, now.metrics | ot_metrics(*solved, config.ot)

    def mean_weights(state, read, batch_size):
        examples = read(state.variables)

        @jax.jit
        def weigh(examples, order):
            """The weights in each batch of an order; nothing `[N, K]` is formed."""

            def of_batch(ids):
                z, labels = jax.tree.map(lambda x: x[ids], tuple(examples))
                losses = loss(model.logits(state.variables["params"]["head"], z), labels)
                inputs = net_inputs(net_input, z, labels, losses, num_classes)
                return net.apply({"params": state.net_params}, inputs)

            return jax.lax.map(of_batch, order)

        return _mean_over_batches(partial(weigh, examples), len(examples.labels), batch_size)

    return Method(init, step, refresh, weights=mean_weights, reads_inputs=config.reads_inputs)


def net_inputs(
    net_input: NetInput,
    z: Float[Array, "b d"],
    labels: Int[Array, "b"],
    losses: Float[Array, "b"],
    num_classes: int,
) -> Float[Array, "b e"]:
    """What the net sees of a batch.

    Args:
        net_input: as of `ot_weight_net`.
        z: features.
        labels: classes, in 0..K-1.
        losses: of the examples.
        num_classes: number of classes K.
    """
    of_labels = jax.nn.one_hot(class_ids(labels, num_classes), num_classes, dtype=z.dtype)
    match net_input:
        case "features":
            return z
        case "label":
            return of_labels
        case "loss":
            return losses[:, None]
        case _:
            return jnp.concatenate([z, of_labels], axis=-1)


def _mean_over_batches(weigh, count: int, size: int) -> Float[np.ndarray, "n"]:
    """Mean weight of each example over the batches of `ORDERS` random orders, times their size."""
    size = min(size, count)
    rng, sums, times = np.random.default_rng(0), np.zeros(count), np.zeros(count)
    for _ in range(ORDERS):
        order = np.resize(rng.permutation(count), (-(-count // size), size))  # Which goes round.
        np.add.at(sums, order, size * np.asarray(weigh(order), np.float64))
        np.add.at(times, order, 1)
    return sums / times


def _require_choices(config: OTProblem, net_input: str, axis_name: str | None) -> None:
    if config.second_order and axis_name is not None:
        raise ValueError("ot_weight_net: second_order is for one device; leave axis_name out.")
    if net_input not in get_args(NetInput):
        raise ValueError(
            f"ot_weight_net: net_input is {net_input!r}; choose one of {list(get_args(NetInput))}."
        )
