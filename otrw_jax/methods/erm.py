"""Empirical risk minimisation: any per-example loss, class weights, and part of the parameters."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.losses import cross_entropy
from otrw_jax.methods.base import (
    Method,
    classification_metrics,
    global_sum,
    merge_params,
    split_params,
)
from otrw_jax.model import Model


@flax.struct.dataclass
class ERMState:
    """State of `erm`: steps taken, the network's variables, the optimiser's state."""

    step: Int[Array, ""]
    variables: PyTree
    opt_state: PyTree


def erm(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    loss: Callable = cross_entropy,
    class_weights: Float[Array, "k"] | None = None,
    trainable: str = ".*",
    batch_norm: bool = True,
    axis_name: str | None = None,
) -> Method:
    """Minimises `mean_i c_{y_i} loss_i` over batches: stage 1 of the paper, and its baselines.

    Args:
        model: the network.
        optimizer: any optax transformation.
        loss: `(logits [b, k], labels [b]) -> [b]`.
        class_weights: factor of each class, `[k]`; the sum is divided by the batch size, not by the
            weights of the batch. Ones by default.
        trainable: which parameters, as in `split_params`.
        batch_norm: whether the pass is in training mode (batch statistics) or in evaluation mode
            (running statistics, left as they are).
        axis_name: mapped axis over which the batch is spread.
    """

    def init(key, variables, data):
        del key, data
        trained, _ = split_params(variables["params"], trainable)
        return ERMState(jnp.zeros((), jnp.int32), variables, optimizer.init(trained))

    def step(state, batch, meta):
        del meta
        trained, frozen = split_params(state.variables["params"], trainable)

        def objective(trained):
            params = merge_params(trained, frozen)
            variables = {"params": params, "state": state.variables["state"]}
            z, model_state = model.features(variables, batch.inputs, batch_norm)
            logits = model.logits(params["head"], z)
            losses = loss(logits, batch.labels)
            weights = 1.0 if class_weights is None else jnp.asarray(class_weights)[batch.labels]
            total = jnp.sum(weights * losses)
            return total, (model_state, losses, logits)

        gradient, (model_state, losses, logits) = jax.grad(objective, has_aux=True)(trained)
        metrics = classification_metrics(losses, logits, batch.labels, axis_name)
        size = metrics["loss"][1]
        gradient = jax.tree.map(lambda g: g / size, global_sum(gradient, axis_name))
        updates, opt_state = optimizer.update(gradient, state.opt_state, trained)
        params = merge_params(optax.apply_updates(trained, updates), frozen)
        variables = {"params": params, "state": model_state}
        return ERMState(state.step + 1, variables, opt_state), metrics

    return Method(init, step)
