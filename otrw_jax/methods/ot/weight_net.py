"""Stage 2 with a weight net: example weights amortised by a net (Guo et al. 2022, Algorithm 2)."""

from typing import Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import Method, check_data, split_params
from otrw_jax.methods.ot.passes import (
    everywhere,
    make_features,
    ot_metrics,
    ot_step,
    reads_inputs,
    refreshed_meta,
    require_data,
)
from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.models.model import Model
from otrw_jax.ot.entropic import ot_loss_and_convergence

NetInput = Literal["features", "label", "loss", "features_and_label"]

# What concerns weights that are kept for each example; the net keeps none.
_FIXED = {
    "weighting": "learned",
    "initial": "uniform",
    "simplex": "normalize",
    "from_scratch": False,
    "sampling": False,
    "problem": "batch",
}


@flax.struct.dataclass
class OTWeightNetState:
    """State of `ot_weight_net`.

    Attributes:
        step: steps taken.
        key: base key; each step folds its number in.
        variables: the network's.
        opt_state: the optimiser's, of the trained parameters.
        net_params: Ω, the parameters of the weight net.
        net_opt_state: the state of the net's optimiser.
        meta_features: of the meta examples (or mean inputs) at the last refresh, `[m, d]`.
        meta_labels: their classes, `[m]`.
    """

    step: Int[Array, ""]
    key: Array
    variables: PyTree
    opt_state: PyTree
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
    config: OTReweighting = OTReweighting(),
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
            such as those of `otrw_jax.ot.weight_nets`.
        net_optimizer: of the net; SGD with learning rate 4e-2 in the paper's text experiments.
        num_classes: number of classes K.
        config: as of `ot_reweight`, but for the fields of weights that are kept: `weighting`,
            `initial`, `simplex`, `from_scratch`, `sampling` and `problem` stay at their defaults.
        net_input: what the net sees of an example: its features z, its one-hot label, its loss,
            or its features followed by its one-hot label.
        loss: `(logits [b, k], labels [b]) -> [b]`, of the training examples.
        axis_name: mapped axis over which the batch is spread. The OT problem and the net's batch
            are the whole batch, and every device takes the same step of the net.

    Raises:
        ValueError: a choice of `config` that concerns kept weights, `second_order` together with
            `axis_name`, or an unknown `net_input`; from `init`, no meta set, or a class without
            meta example.
    """
    _require_choices(config, net_input, axis_name)
    passes = ot_step(model, optimizer, num_classes, config, loss, axis_name)
    features = make_features(model, axis_name)

    def init(key, variables, data):
        check_data(model, variables, data, num_classes)
        require_data("ot_weight_net", config, num_classes, data)
        trained, _ = split_params(variables["params"], config.trainable)
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
        state = OTWeightNetState(
            step=jnp.zeros((), jnp.int32),
            key=key,
            variables=variables,
            opt_state=optimizer.init(trained),
            net_params=net_params,
            net_opt_state=net_optimizer.init(net_params),
            meta_features=jnp.zeros((0, 0)),
            meta_labels=jnp.zeros((0,), jnp.int32),
        )
        return refreshed_meta(features, num_classes, config, state, data, None)

    def refresh(state, data):
        return refreshed_meta(features, num_classes, config, state, data, axis_name)

    def step(state, batch, meta):
        now = passes(state, batch, meta)
        own = net_inputs(net_input, now.features, batch.labels, now.losses, num_classes)
        inputs = everywhere(own, axis_name)

        def weights_of(net_params):
            return net.apply({"params": net_params}, inputs)

        weights, pullback = jax.vjp(weights_of, state.net_params)
        fixed = None if config.second_order else now.ot_problem(weights)

        def objective(weights):
            cost, measure = now.ot_problem(weights) if fixed is None else fixed
            return ot_loss_and_convergence(weights, cost, measure.weights, ot=config.ot)

        # The loss's gradient is known up to a constant, which the net's simplex takes out.
        solved, slope = jax.value_and_grad(objective, has_aux=True)(weights)
        updates, net_opt_state = net_optimizer.update(
            pullback(slope)[0], state.net_opt_state, state.net_params
        )
        net_params = optax.apply_updates(state.net_params, updates)
        state = now.network_step(state, weights_of(net_params))
        state = state.replace(net_params=net_params, net_opt_state=net_opt_state)
        return state, now.metrics | ot_metrics(*solved, config.ot)

    return Method(init, step, refresh, reads_inputs=reads_inputs(config))


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
    match net_input:
        case "features":
            return z
        case "label":
            return jax.nn.one_hot(labels, num_classes, dtype=z.dtype)
        case "loss":
            return losses[:, None]
        case _:
            one_hot = jax.nn.one_hot(labels, num_classes, dtype=z.dtype)
            return jnp.concatenate([z, one_hot], axis=-1)


def _require_choices(config: OTReweighting, net_input: str, axis_name: str | None) -> None:
    for name, value in _FIXED.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"ot_weight_net: {name}={getattr(config, name)!r} concerns weights that are kept "
                f"for each example; leave it at {value!r}."
            )
    if config.second_order and axis_name is not None:
        raise ValueError("ot_weight_net: second_order is for one device; leave axis_name out.")
    if net_input not in NetInput.__args__:
        raise ValueError(
            f"ot_weight_net: net_input is {net_input!r}; choose one of {list(NetInput.__args__)}."
        )
