"""Class weights corrected example by example, by a meta set (Jamal et al. 2020)."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.checks import check_finite, check_number
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
    require_meta_set,
)
from otrw_jax.methods.meta.virtual_step import slopes, virtual_step
from otrw_jax.models.model import Model


@flax.struct.dataclass
class MetaClassWeightState:
    """State of `meta_class_weight`.

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
        trainable: which parameters, as in `split_params`; virtual steps move these alone.
        batch_norm: whether the passes are in training mode (batch statistics; the running ones
            follow the training batch alone) or in evaluation mode.
        axis_name: mapped axis over which the batch is spread.

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

    def init(key, variables, data):
        check_data(model, variables, data)
        require_meta_set("meta_class_weight", data)
        if class_weights.shape != (data.num_classes,):
            raise ValueError(
                f"meta_class_weight: class_weights has the shape {class_weights.shape}; give one "
                f"weight for each of the {data.num_classes} classes."
            )
        trained, _ = split_params(variables["params"], trainable)
        return MetaClassWeightState(
            jnp.zeros((), jnp.int32), key, variables, optimizer.init(trained)
        )

    def step(state, batch, meta):
        trained, frozen = split_params(state.variables["params"], trainable)
        rest = frozen, state.variables["state"], batch_norm
        losses_of = losses_on(model, loss, batch, *rest)
        losses, pullback, (logits, model_state) = jax.vjp(losses_of, trained, has_aux=True)
        metrics = classification_metrics(losses, logits, batch.labels, axis_name)

        def weighted_gradient(weights):
            return global_sum(pullback(weights)[0], axis_name)

        def learned_weights():
            prior = class_weights[batch.labels].astype(losses.dtype)
            virtual = virtual_step(trained, weighted_gradient(prior), virtual_learning_rate)
            examples = meta_batch_of(meta, meta_batch, state.key, state.step)
            direction = mean_gradient(losses_on(model, loss_meta, examples, *rest), virtual)
            slope = slopes(lambda trained: losses_of(trained)[0], trained, direction)
            return prior + weight_learning_rate * virtual_learning_rate * slope

        # Under vmap, as with seeds trained together, both branches are computed.
        weights = jax.lax.cond(state.step >= start, learned_weights, lambda: jnp.ones_like(losses))
        gradient = weighted_gradient(weights / metrics["loss"][1])
        return descend(optimizer, state, gradient, trained, frozen, model_state), metrics

    return Method(init, step)
