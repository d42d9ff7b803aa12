"""Learning to re-weight: weights by the slope of a meta loss in each example's gradient."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Int, PyTree

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
from otrw_jax.methods.meta.virtual_step import slopes
from otrw_jax.models.model import Model


@flax.struct.dataclass
class L2RWState:
    """State of `l2rw`.

    Attributes:
        step: steps taken.
        key: base key of the meta batches; each step folds its number in.
        variables: the network's.
        opt_state: the optimiser's, of the trained parameters.
    """

    step: Int[Array, ""]
    key: Array
    variables: PyTree
    opt_state: PyTree


def l2rw(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    loss: PerExampleLoss = cross_entropy,
    loss_meta: PerExampleLoss = cross_entropy,
    meta_batch: int = 100,
    trainable: str = ".*",
    batch_norm: bool = True,
    axis_name: str | None = None,
) -> Method:
    """Minimises `Σ_i w_i loss_i`, w_i learned anew in each step from a balanced meta batch.

    The weights of a batch start at ε = 0, where the virtual step θ - α ∇ Σ_i ε_i ℓ_i stays at θ,
    and take one step down the meta loss L, whose slope in ε_i is -α ⟨∇ℓ_i, ∇L⟩. Hence
    w̃_i = max(0, ⟨∇ℓ_i, ∇L⟩), w_i = w̃_i / Σ_j w̃_j, or 0 where all w̃ are 0; α cancels.

    Ren et al., Learning to Reweight Examples for Robust Deep Learning, ICML 2018, Algorithm 1
    and eqs. 7-9.

    Args:
        model: the network.
        optimizer: any optax transformation.
        loss: `(logits [b, k], labels [b]) -> [b]`.
        loss_meta: of the meta examples, likewise; L is its mean.
        meta_batch: the most meta examples a step; from a larger meta set they are drawn.
        trainable: which parameters, as in `split_params`; the gradients are in these alone.
        batch_norm: whether the passes are in training mode (batch statistics; the running ones
            follow the training batch alone) or in evaluation mode.
        axis_name: mapped axis over which the batch is spread.

    Raises:
        ValueError: `meta_batch` is less than 1; from `init`, no meta set, or as `check_data`.
    """
    check_rates("l2rw", meta_batch)

    def init(key, variables, data):
        check_data(model, variables, data)
        require_meta_set("l2rw", data)
        trained, _ = split_params(variables["params"], trainable)
        return L2RWState(jnp.zeros((), jnp.int32), key, variables, optimizer.init(trained))

    def step(state, batch, meta):
        trained, frozen = split_params(state.variables["params"], trainable)
        rest = frozen, state.variables["state"], batch_norm
        losses_of = losses_on(model, loss, batch, *rest)
        losses, pullback, (logits, model_state) = jax.vjp(losses_of, trained, has_aux=True)
        metrics = classification_metrics(losses, logits, batch.labels, axis_name)

        examples = meta_batch_of(meta, meta_batch, state.key, state.step)
        direction = mean_gradient(losses_on(model, loss_meta, examples, *rest), trained)
        raw = slopes(lambda trained: losses_of(trained)[0], trained, direction)
        weights = normalised(jnp.maximum(raw, 0), axis_name)

        gradient = global_sum(pullback(weights)[0], axis_name)
        return descend(optimizer, state, gradient, trained, frozen, model_state), metrics

    return Method(init, step)
