"""Meta-Weight-Net: a small network gives an example's weight as a function of its loss."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, PyTree

from otrw_jax.checks import check_number
from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import Method, check_data
from otrw_jax.methods.meta.meta_loss import (
    check_rates,
    meta_batch_of,
    normalised,
    require_meta_set,
)
from otrw_jax.methods.part import Part, TrainState, at_step
from otrw_jax.methods.virtual_step import virtual_step
from otrw_jax.models.model import Model


class WeightNet(nn.Module):
    """V: losses `[b]` to weights in (0, 1), `[b]`; one hidden layer with ReLU, then a sigmoid.

    Kernels and biases start uniform in ±1/√(inputs of the layer), PyTorch's default, as in the
    authors' program: units then switch on at different losses.

    Attributes:
        hidden: width of the hidden layer.
    """

    hidden: int = 100

    @nn.compact
    def __call__(self, losses: Float[Array, "b"]) -> Float[Array, "b"]:
        x = nn.relu(_dense(1, self.hidden)(losses[:, None]))
        return nn.sigmoid(_dense(self.hidden, 1)(x))[:, 0]


@flax.struct.dataclass
class MetaWeightNetState(TrainState):
    """State of `meta_weight_net`.

    Attributes:
        net_params: parameters of V.
        net_opt_state: the state of V's optimiser.
    """

    net_params: PyTree
    net_opt_state: PyTree


def meta_weight_net(
    model: Model,
    optimizer: optax.GradientTransformation,
    net_optimizer: optax.GradientTransformation,
    *,
    virtual_learning_rate: float | optax.Schedule,
    loss: PerExampleLoss = cross_entropy,
    loss_meta: PerExampleLoss = cross_entropy,
    hidden: int = 100,
    meta_batch: int = 100,
    trainable: str = ".*",
    batch_norm: bool = True,
    axis_name: str | None = None,
) -> Method:
    """Minimises `Σ_i w_i loss_i`, w_i = V(loss_i) / Σ_j V(loss_j), V learned on a meta set.

    Each step: (a) a virtual step of the network, θ' = θ - α ∇ Σ_i w_i ℓ_i; (b) a step of V's
    parameters on the meta loss at θ', whose slope in w_i is -α ⟨∇ℓ_i, ∇L(θ')⟩; (c) a step of the
    network from θ with the weights of the new V. V sees the losses as numbers: nothing is
    differentiated through its input.

    Shu et al., Meta-Weight-Net: Learning an Explicit Mapping For Sample Weighting, NeurIPS 2019,
    eqs. 3-8; the weights are divided by their sum as in the authors' program.

    Args:
        model: the network.
        optimizer: of the network.
        net_optimizer: of V; in the authors' program SGD with Nesterov momentum 0.9, learning rate
            1e-5 and weight decay 5e-4.
        virtual_learning_rate: α, or a schedule of the step's number; in the paper the learning
            rate of the network.
        loss: `(logits [b, k], labels [b]) -> [b]`.
        loss_meta: of the meta examples, likewise; L is its mean.
        hidden: width of V.
        meta_batch: the most meta examples a step; from a larger meta set they are drawn.
        trainable, batch_norm, axis_name: as of `Part`.

    Raises:
        ValueError: the virtual rate is negative or not finite, `hidden` or `meta_batch` is less
            than 1; from `init`, no meta set, or as `check_data`.
    """
    check_number("meta_weight_net", "hidden", hidden, least=1, whole=True)
    check_rates("meta_weight_net", meta_batch, virtual_learning_rate)
    net = WeightNet(hidden)
    part = Part(model, optimizer, trainable, batch_norm, axis_name)

    def init(key, variables, data):
        check_data(model, variables, data)
        require_meta_set("meta_weight_net", data)
        net_key, key = jax.random.split(key)
        net_params = net.init(net_key, jnp.zeros(1))["params"]
        own = {"net_params": net_params, "net_opt_state": net_optimizer.init(net_params)}
        return part.start(key, variables, MetaWeightNetState, **own)

    def step(state, batch, meta):
        now = part.loss_pass(loss, batch, state.variables)

        def weights_of(net_params):
            return normalised(net.apply({"params": net_params}, now.losses), axis_name)

        rate = at_step(virtual_learning_rate, state.step)
        weights, net_pullback = jax.vjp(weights_of, state.net_params)
        virtual = virtual_step(now.trained, now.gradient(weights), rate)
        examples = meta_batch_of(meta, meta_batch, state.key, state.step)
        direction = part.mean_gradient(loss_meta, examples, virtual, now.rest)
        slope = now.slopes(direction)
        net_gradient = part.summed(net_pullback(-rate * slope)[0])
        updates, net_opt_state = net_optimizer.update(
            net_gradient, state.net_opt_state, state.net_params
        )
        net_params = optax.apply_updates(state.net_params, updates)

        state = part.descend(state, now.gradient(weights_of(net_params)), now.after)
        return state.replace(net_params=net_params, net_opt_state=net_opt_state), now.metrics

    return Method(init, step)


def _dense(inputs: int, outputs: int) -> nn.Dense:
    bound = inputs**-0.5

    def uniform(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(outputs, kernel_init=uniform, bias_init=uniform)
