"""Example weights kept and learned by the loss of a balanced set (Hu et al., NeurIPS 2019)."""

from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from otrw_jax.checks import check_number
from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import Method, check_data, everywhere
from otrw_jax.methods.meta.meta_loss import (
    check_rates,
    meta_batch_of,
    normalised,
    require_meta_set,
)
from otrw_jax.methods.part import Part, TrainState, at_step
from otrw_jax.methods.virtual_step import virtual_step
from otrw_jax.models.model import Model

# What φ is cut at from below, in the authors' program.
_FLOOR = 1e-5


@flax.struct.dataclass
class LearnedWeightsState(TrainState):
    """State of `learned_weights`.

    Attributes:
        weights: φ of all N training examples, not normalised.
    """

    weights: Float[Array, "N"]


def learned_weights(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    virtual_learning_rate: float | optax.Schedule = 4e-5,
    virtual: Literal["gradient", "optimizer"] = "gradient",
    tau: float = 5.0,
    regularisation: float = 0.0,
    initial: float = 1.0,
    loss: PerExampleLoss = cross_entropy,
    loss_meta: PerExampleLoss = cross_entropy,
    meta_batch: int = 100,
    trainable: str = ".*",
    batch_norm: bool = True,
    axis_name: str | None = None,
) -> Method:
    """Minimises `Σ_i w_i loss_i`, w_i = φ_i / Σ_j φ_j, φ kept for each training example.

    Each step: (a) a virtual step of the network, θ' = θ + Σ_i φ_i δ_i over the batch, with
    δ_i = -α ∇ℓ_i; (b) φ_i <- max(φ_i / τ - ∂L/∂φ_i, 1e-5), L the meta loss at θ', whose slope in
    φ_i is ⟨δ_i, ∇L(θ')⟩; (c) a step of the network from θ with the new φ over their sum.

    Hu et al., Learning Data Manipulation for Augmentation and Weighting, NeurIPS 2019, data
    weighting with linear normalisation, as in the authors' program: φ starts at 1, τ is 5 or 10
    (SST-2) or 2 (CIFAR-10), Adam with learning rate 4e-5 and batches of 25 for text. The paper's
    formula has a softmax over the batch; the program's published runs have the sum. There δ_i is
    what the optimiser makes of the gradient of example i alone (`virtual="optimizer"`), taken over
    eight examples at a time to save memory and after a first step of equal weights; here it is
    the whole batch, from the first step.

    Results of this method "with regularization" are quoted by Guo et al. 2022 from Liu et al.,
    Improving the Accuracy of Learning Example Weights for Imbalance Classification, ICLR 2022,
    without a formula. `regularisation` is a stand-in: the loss ρ/2 Σ_i (φ_i - φ_start)² beside L.

    Args:
        model: the network.
        optimizer: of the network.
        virtual_learning_rate: α, or a schedule of the step's number; for `"gradient"`.
        virtual: δ_i is a step of gradient descent, or the optimiser's from its present state:
            the gradient of each example is held at once, `[b, parameters]`.
        tau: τ, by which a visit divides φ; 1 for no decay.
        regularisation: ρ, 0 for none.
        initial: φ at the start.
        loss: `(logits [b, k], labels [b]) -> [b]`.
        loss_meta: of the meta examples, likewise; L is its mean.
        meta_batch: the most meta examples a step; from a larger meta set they are drawn.
        trainable, batch_norm, axis_name: as of `Part`.

    Raises:
        ValueError: tau below 1, another number that is negative or not finite, `meta_batch` less
            than 1, an unknown `virtual`; from `init`, no meta set, or as `check_data`.
    """
    check_number("learned_weights", "tau", tau, least=1)
    check_number("learned_weights", "regularisation", regularisation, least=0)
    check_number("learned_weights", "initial", initial, least=0)
    check_rates("learned_weights", meta_batch, virtual_learning_rate)
    if virtual not in ("gradient", "optimizer"):
        raise ValueError(
            f"learned_weights: virtual is {virtual!r}; choose 'gradient' or 'optimizer'."
        )
    part = Part(model, optimizer, trainable, batch_norm, axis_name)

    def init(key, variables, data):
        check_data(model, variables, data)
        require_meta_set("learned_weights", data)
        weights = jnp.full((data.train.labels.shape[0],), initial, jnp.float32)
        return part.start(key, variables, LearnedWeightsState, weights=weights)

    def step(state, batch, meta):
        now = part.loss_pass(loss, batch, state.variables)
        examples = meta_batch_of(meta, meta_batch, state.key, state.step)

        def meta_gradient(at):
            return part.mean_gradient(loss_meta, examples, at, now.rest)

        def by_gradient(phi):
            rate = at_step(virtual_learning_rate, state.step)
            direction = meta_gradient(virtual_step(now.trained, now.gradient(phi), rate))
            return -rate * now.slopes(direction)

        def by_optimizer(phi):
            def delta(gradient):
                return optimizer.update(gradient, state.opt_state, now.trained)[0]

            each = jnp.eye(phi.shape[0], dtype=phi.dtype)
            gradients = jax.vmap(lambda one: now.pullback(one)[0])(each)
            deltas = jax.vmap(delta)(gradients)
            moved = part.summed(jax.tree.map(lambda d: jnp.tensordot(phi, d, 1), deltas))
            direction = meta_gradient(jax.tree.map(jnp.add, now.trained, moved))
            products = jax.tree.map(lambda d, g: jnp.tensordot(d, g, g.ndim), deltas, direction)
            return sum(jax.tree.leaves(products))

        phi = state.weights[batch.ids].astype(now.losses.dtype)
        slope = by_gradient(phi) if virtual == "gradient" else by_optimizer(phi)
        slope = slope + regularisation * (phi - initial)
        phi = jnp.maximum(phi / tau - slope, _FLOOR)
        gradient = now.gradient(normalised(phi, axis_name))
        ids, values = everywhere((batch.ids, phi.astype(state.weights.dtype)), axis_name)
        state = part.descend(state, gradient, now.after)
        return state.replace(weights=state.weights.at[ids].set(values)), now.metrics

    return Method(init, step, weights=lambda state, read, batch_size: state.weights)
