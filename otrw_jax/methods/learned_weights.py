"""Example weights kept and learned by the loss of a balanced set (Hu et al., NeurIPS 2019)."""

from typing import Literal

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
from otrw_jax.methods.meta_learning import (
    check_rates,
    descend,
    losses_on,
    mean_gradient,
    meta_batch_of,
    normalised,
    require_meta_set,
)
from otrw_jax.methods.virtual_step import slopes, virtual_step
from otrw_jax.model import Model

# What φ is cut at from below, in the authors' program.
_FLOOR = 1e-5


@flax.struct.dataclass
class LearnedWeightsState:
    """State of `learned_weights`.

    Attributes:
        step: steps taken.
        key: base key of the meta batches; each step folds its number in.
        variables: the network's.
        opt_state: the optimiser's, of the trained parameters.
        weights: φ of all N training examples, not normalised.
    """

    step: Int[Array, ""]
    key: Array
    variables: PyTree
    opt_state: PyTree
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
        trainable: which parameters, as in `split_params`; virtual steps move these alone.
        batch_norm: whether the passes are in training mode (batch statistics; the running ones
            follow the training batch alone) or in evaluation mode.
        axis_name: mapped axis over which the batch is spread.

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

    def init(key, variables, data):
        check_data(model, variables, data)
        require_meta_set("learned_weights", data)
        trained, _ = split_params(variables["params"], trainable)
        return LearnedWeightsState(
            step=jnp.zeros((), jnp.int32),
            key=key,
            variables=variables,
            opt_state=optimizer.init(trained),
            weights=jnp.full((data.train.labels.shape[0],), initial, jnp.float32),
        )

    def step(state, batch, meta):
        trained, frozen = split_params(state.variables["params"], trainable)
        rest = frozen, state.variables["state"], batch_norm
        losses_of = losses_on(model, loss, batch, *rest)
        losses, pullback, (logits, model_state) = jax.vjp(losses_of, trained, has_aux=True)
        metrics = classification_metrics(losses, logits, batch.labels, axis_name)
        examples = meta_batch_of(meta, meta_batch, state.key, state.step)

        def meta_gradient(at):
            return mean_gradient(losses_on(model, loss_meta, examples, *rest), at)

        def by_gradient(phi):
            rate = virtual_learning_rate
            if callable(rate):
                rate = rate(state.step)
            gradient = global_sum(pullback(phi)[0], axis_name)
            direction = meta_gradient(virtual_step(trained, gradient, rate))
            return -rate * slopes(lambda trained: losses_of(trained)[0], trained, direction)

        def by_optimizer(phi):
            each = jnp.eye(phi.shape[0], dtype=phi.dtype)
            gradients = jax.vmap(lambda one: pullback(one)[0])(each)
            deltas = jax.vmap(lambda g: optimizer.update(g, state.opt_state, trained)[0])(gradients)
            moved = global_sum(jax.tree.map(lambda d: jnp.tensordot(phi, d, 1), deltas), axis_name)
            direction = meta_gradient(jax.tree.map(jnp.add, trained, moved))
            products = jax.tree.map(lambda d, g: jnp.tensordot(d, g, g.ndim), deltas, direction)
            return sum(jax.tree.leaves(products))

        phi = state.weights[batch.ids].astype(losses.dtype)
        slope = by_gradient(phi) if virtual == "gradient" else by_optimizer(phi)
        slope = slope + regularisation * (phi - initial)
        phi = jnp.maximum(phi / tau - slope, _FLOOR)
        gradient = global_sum(pullback(normalised(phi, axis_name))[0], axis_name)
        ids, values = batch.ids, phi.astype(state.weights.dtype)
        if axis_name is not None:
            ids, values = jax.lax.all_gather((ids, values), axis_name, tiled=True)
        state = descend(optimizer, state, gradient, trained, frozen, model_state)
        return state.replace(weights=state.weights.at[ids].set(values)), metrics

    return Method(init, step)
