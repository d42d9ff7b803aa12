"""Class weights corrected example by example, by a meta set (Jamal et al. 2020)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

from otrw_jax.checks import check_finite, check_number
from otrw_jax.classes import of_class
from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import Method, check_data
from otrw_jax.methods.meta.meta_loss import check_rates, meta_batch_of, require_meta_set
from otrw_jax.methods.part import Part
from otrw_jax.methods.virtual_step import virtual_step
from otrw_jax.models.model import Model


def meta_class_weight(
    model: Model,
    optimizer: optax.GradientTransformation,
    class_weights: Float[Array | np.ndarray, "k"],
    *,
    start: int,
    loss: PerExampleLoss = cross_entropy,
    loss_meta: PerExampleLoss = cross_entropy,
    virtual_learning_rate: float = 1e-3,
    weight_learning_rate: float = 0.01,
    meta_batch: int = 100,
    trainable: str = ".*",
    batch_norm: bool = True,
    axis_name: str | None = None,
) -> Method:
    """Minimises `mean_i (c_{y_i} + ε_i) loss_i`, ε learned anew in each step from a meta batch.

    Before step `start` the plain mean of the losses is minimised. From then on, each step: (a) a
    virtual step at ε = 0, θ' = θ - α ∇ Σ_i c_{y_i} ℓ_i, of the sum over the batch; (b)
    ε_i = -η ∂L(θ')/∂ε_i = η α ⟨∇ℓ_i, ∇L(θ')⟩, L the mean meta loss; (c) a step of the network
    from θ on the mean of the weighted losses. A weight may come out negative; it is not clipped.

    Jamal et al., Rethinking Class-Balanced Methods for Long-Tailed Visual Recognition from a
    Domain Adaptation Perspective, CVPR 2020, Algorithm 1; sum, mean and rates are those of the
    authors' program.

    Args:
        model: the network.
        optimizer: any optax transformation.
        class_weights: c, `[K]`; in the paper `effective_number_weights`.
        start: number of the first step that uses weights; in the authors' program the first of
            epoch 160 of 200.
        loss: `(logits [b, k], labels [b]) -> [b]`; in the paper cross-entropy, focal or LDAM.
        loss_meta: of the meta examples, likewise; L is its mean.
        virtual_learning_rate: α.
        weight_learning_rate: η.
        meta_batch: the most meta examples a step; from a larger meta set they are drawn.
        trainable, batch_norm, axis_name: as of `Part`.

    Raises:
        ValueError: a rate or `start` is negative or not finite, class weights are not finite, or
            `meta_batch` is less than 1; from `init`, no meta set, class weights that are not `[K]`,
            or as `check_data`.
    """
    check_number("meta_class_weight", "start", start, least=0)
    check_number("meta_class_weight", "weight_learning_rate", weight_learning_rate, least=0)
    check_rates("meta_class_weight", meta_batch, virtual_learning_rate)
    check_finite("meta_class_weight", "class_weights", class_weights)
    class_weights = jnp.asarray(class_weights, jnp.float32)
    part = Part(model, optimizer, trainable, batch_norm, axis_name)

    def init(key, variables, data):
        check_data(model, variables, data)
        require_meta_set("meta_class_weight", data)
        if class_weights.shape != (data.num_classes,):
            raise ValueError(
                f"meta_class_weight: class_weights has the shape {class_weights.shape}; give one "
                f"weight for each of the {data.num_classes} classes."
            )
        return part.start(key, variables)

    def step(state, batch, meta):
        now = part.loss_pass(loss, batch, state.variables)

        def learned_weights():
            prior = of_class(class_weights, batch.labels).astype(now.losses.dtype)
            virtual = virtual_step(now.trained, now.gradient(prior), virtual_learning_rate)
            examples = meta_batch_of(meta, meta_batch, state.key, state.step)
            direction = part.mean_gradient(loss_meta, examples, virtual, now.rest)
            return prior + weight_learning_rate * virtual_learning_rate * now.slopes(direction)

        def ones():
            return jnp.ones_like(now.losses)

        # Under vmap, as with seeds trained together, both branches are computed.
        weights = jax.lax.cond(state.step >= start, learned_weights, ones)
        return part.descend(state, now.gradient(weights / now.size), now.after), now.metrics

    return Method(init, step)
