"""What the methods share that learn by the loss of a balanced meta set."""

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from otrw_jax.checks import check_number
from otrw_jax.methods.base import Examples, TrainingData, global_sum


def require_meta_set(method: str, data: TrainingData) -> Examples:
    """The meta set; raises ValueError where the data have none, or an empty one."""
    if data.meta is None or data.meta.labels.shape[0] == 0:
        raise ValueError(f"{method} needs a meta set: take meta_per_class of 1 or more.")
    return data.meta


def check_rates(method: str, meta_batch: int, *rates: float | optax.Schedule) -> None:
    """Raises ValueError where a step takes no meta example, or a rate is negative or not finite."""
    check_number(method, "meta_batch", meta_batch, least=1, whole=True)
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


def normalised(values: Float[Array, "b"], axis_name: str | None) -> Float[Array, "b"]:
    """Values of at least 0 divided by their sum over all devices; zeros where all are zero.

    One value that is not a number makes all of them so.
    """
    total = global_sum(jnp.sum(values), axis_name)
    return values / jnp.where(total == 0, 1, total)
