"""Parts shared by the methods that learn example weights from the loss of a balanced meta set."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.checks import check_number
from otrw_jax.losses import PerExampleLoss
from otrw_jax.methods.base import Batch, Examples, TrainingData, global_sum, merge_params
from otrw_jax.models.model import Model


def require_meta_set(method: str, data: TrainingData) -> None:
    """Raises ValueError where the data have no meta set, or an empty one."""
    if data.meta is None or data.meta.labels.shape[0] == 0:
        raise ValueError(f"{method} needs a meta set: take meta_per_class of 1 or more.")


def check_rates(method: str, meta_batch: int, *rates: float | optax.Schedule) -> None:
    """Raises ValueError where a step takes no meta example, or a rate is negative or not finite."""
    check_number(method, "meta_batch", meta_batch, least=1)
    for rate in rates:
        check_number(method, "virtual_learning_rate", rate, least=0)


def meta_batch_of(meta: Examples, size: int, key: Array, step: Int[Array, ""]) -> Examples:
    """The meta examples of a step: `size` of them, drawn without replacement, or all if no more.

    Args:
        meta: the meta set, the same on all devices.
        size: the most examples to take.
        key: base key, the same on all devices; the step's number is folded in.
        step: number of the step.
    """
    count = meta.labels.shape[0]
    if count <= size:
        return meta
    ids = jax.random.permutation(jax.random.fold_in(key, step), count)[:size]
    return jax.tree.map(lambda x: x[ids], meta)


def losses_on(
    model: Model,
    loss: PerExampleLoss,
    examples: Batch | Examples,
    frozen: PyTree,
    model_state: PyTree,
    batch_norm: bool,
) -> Callable[[PyTree], tuple[Float[Array, "b"], tuple[Float[Array, "b k"], PyTree]]]:
    """The losses of examples as a function of the trained parameters.

    Args:
        model: the network.
        loss: `(logits [b, k], labels [b]) -> [b]`.
        examples: inputs and labels.
        frozen: the other parameters, as `split_params` gives them.
        model_state: state of the network before the pass.
        batch_norm: whether the pass is in training mode.

    Returns:
        `trained -> (losses, (logits, state of the network after the pass))`.
    """

    def losses(trained):
        params = merge_params(trained, frozen)
        variables = {"params": params, "state": model_state}
        z, after = model.features(variables, examples.inputs, batch_norm)
        logits = model.logits(params["head"], z)
        return loss(logits, examples.labels), (logits, after)

    return losses


def mean_gradient(losses: Callable[[PyTree], tuple[Array, Any]], trained: PyTree) -> PyTree:
    """Gradient of the mean of what `losses_on` gives."""
    return jax.grad(lambda trained: jnp.mean(losses(trained)[0]))(trained)


def normalised(values: Float[Array, "b"], axis_name: str | None) -> Float[Array, "b"]:
    """Values of at least 0 divided by their sum over all devices; zeros where all are zero.

    One value that is not a number makes all of them so.
    """
    total = global_sum(jnp.sum(values), axis_name)
    return values / jnp.where(total == 0, 1, total)


def descend(
    optimizer: optax.GradientTransformation,
    state: Any,
    gradient: PyTree,
    trained: PyTree,
    frozen: PyTree,
    model_state: PyTree,
) -> Any:
    """The state after a step of the network.

    Args:
        optimizer: of the trained parameters.
        state: dataclass with fields `step`, `variables` and `opt_state`.
        gradient: of the trained parameters, summed over devices.
        trained: the trained parameters.
        frozen: the other parameters.
        model_state: what the network keeps beside its parameters after the step.
    """
    updates, opt_state = optimizer.update(gradient, state.opt_state, trained)
    params = merge_params(optax.apply_updates(trained, updates), frozen)
    return state.replace(
        step=state.step + 1,
        variables={"params": params, "state": model_state},
        opt_state=opt_state,
    )
