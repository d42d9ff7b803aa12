"""Learning to re-weight: weights by the slope of a meta loss in each example's gradient."""

import jax.numpy as jnp
import optax

from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import Method, check_data
from otrw_jax.methods.meta.meta_loss import (
    check_rates,
    meta_batch_of,
    normalised,
    require_meta_set,
)
from otrw_jax.methods.part import Part
from otrw_jax.models.model import Model


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
        trainable, batch_norm, axis_name: as of `Part`.

    Raises:
        ValueError: `meta_batch` is less than 1; from `init`, no meta set, or as `check_data`.
    """
    check_rates("l2rw", meta_batch)
    part = Part(model, optimizer, trainable, batch_norm, axis_name)

    def init(key, variables, data):
        check_data(model, variables, data)
        require_meta_set("l2rw", data)
        return part.start(key, variables)

    def step(state, batch, meta):
        now = part.loss_pass(loss, batch, state.variables)
        examples = meta_batch_of(meta, meta_batch, state.key, state.step)
        direction = part.mean_gradient(loss_meta, examples, now.trained, now.rest)
        weights = normalised(jnp.maximum(now.slopes(direction), 0), axis_name)
        return part.descend(state, now.gradient(weights), now.after), now.metrics

    return Method(init, step)
