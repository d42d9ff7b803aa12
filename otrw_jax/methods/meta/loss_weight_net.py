"""Meta-Weight-Net: a small network gives an example's weight as a function of its loss."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.checks import check_number
from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import (
    Method,
    check_data,
    classification_metrics,
    global_sum,
    split_params,
)
from otrw_jax.methods.meta.meta_loss import (
    check_rates,
    descend,
    losses_on,
    mean_gradient,
    meta_batch_of,
    normalised,
    require_meta_set,
)
from otrw_jax.methods.meta.virtual_step import slopes, virtual_step
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
class MetaWeightNetState:
    """State of `meta_weight_net`.

    Attributes:
        step: steps taken.
        key: base key of the meta batches; each step folds its number in.
        variables: the network's.
        opt_state: the optimiser's, of the trained parameters.
        net_params: parameters of V.
        net_opt_state: the state of V's optimiser.
    """

    step: Int[Array, ""]
    key: Array
    variables: PyTree
    opt_state: PyTree
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
        trainable: which parameters, as in `split_params`; virtual steps move these alone.
        batch_norm: whether the passes are in training mode (batch statistics; the running ones
            follow the training batch alone) or in evaluation mode.
        axis_name: mapped axis over which the batch is spread.

    Raises:
        ValueError: the virtual rate is negative or not finite, `hidden` or `meta_batch` is less
            than 1; from `init`, no meta set, or as `check_data`.
    """
    check_number("meta_weight_net", "hidden", hidden, least=1)
    check_rates("meta_weight_net", meta_batch, virtual_learning_rate)
    net = WeightNet(hidden)

    def init(key, variables, data):
        check_data(model, variables, data)
        require_meta_set("meta_weight_net", data)
        trained, _ = split_params(variables["params"], trainable)
        net_key, key = jax.random.split(key)
        net_params = net.init(net_key, jnp.zeros(1))["params"]
        return MetaWeightNetState(
            step=jnp.zeros((), jnp.int32),
            key=key,
            variables=variables,
            opt_state=optimizer.init(trained),
            net_params=net_params,
            net_opt_state=net_optimizer.init(net_params),
        )

    def step(state, batch, meta):
        trained, frozen = split_params(state.variables["params"], trainable)
        rest = frozen, state.variables["state"], batch_norm
        losses_of = losses_on(model, loss, batch, *rest)
        losses, pullback, (logits, model_state) = jax.vjp(losses_of, trained, has_aux=True)
        metrics = classification_metrics(losses, logits, batch.labels, axis_name)

        def weights_of(net_params):
            return normalised(net.apply({"params": net_params}, losses), axis_name)

        def weighted_gradient(weights):
            return global_sum(pullback(weights)[0], axis_name)

        rate = virtual_learning_rate
        if callable(rate):
            rate = rate(state.step)
        weights, net_pullback = jax.vjp(weights_of, state.net_params)
        virtual = virtual_step(trained, weighted_gradient(weights), rate)
        examples = meta_batch_of(meta, meta_batch, state.key, state.step)
        direction = mean_gradient(losses_on(model, loss_meta, examples, *rest), virtual)
        slope = slopes(lambda trained: losses_of(trained)[0], trained, direction)
        net_gradient = global_sum(net_pullback(-rate * slope)[0], axis_name)
        updates, net_opt_state = net_optimizer.update(
            net_gradient, state.net_opt_state, state.net_params
        )
        net_params = optax.apply_updates(state.net_params, updates)

        gradient = weighted_gradient(weights_of(net_params))
        state = descend(optimizer, state, gradient, trained, frozen, model_state)
        return state.replace(net_params=net_params, net_opt_state=net_opt_state), metrics

    return Method(init, step)


def _dense(inputs: int, outputs: int) -> nn.Dense:
    bound = inputs**-0.5

    def uniform(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(outputs, kernel_init=uniform, bias_init=uniform)
