"""The loop over a Method: an epoch is one random order of the data and few calls of the device."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.methods.base import Batch, Examples, Method, TrainingData


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a recipe.

    Attributes:
        name: such as `"stage1"`; checkpoints and records carry it.
        method: how it trains.
        epochs: passes over the training set.
        batch_size: examples a step. What is left over at the end of an epoch's random order is
            not used in that epoch.
    """

    name: str
    method: Method
    epochs: int
    batch_size: int


class DeviceData(NamedTuple):
    """A data set that stays on the device.

    Attributes:
        raw: the stored training examples, N of them, of which batches are taken.
        prepare: `(key, inputs) -> inputs`, from stored to network inputs with augmentation.
        view: what the method sees beside the batches, prepared without augmentation.
    """

    raw: Examples
    prepare: Callable[[Array, PyTree], PyTree]
    view: TrainingData


class TrainingDivergedError(ArithmeticError):
    """The training loss of an epoch is not a number, or infinite."""


EpochFunction = Callable[[Any, DeviceData, Array], tuple[Any, dict[str, float]]]


def make_epoch(
    stage: Stage, prepare: Callable[[Array, PyTree], PyTree], steps_per_call: int = 0
) -> EpochFunction:
    """Compiles one epoch of a stage; keep the result, it compiles once.

    Args:
        stage: method and batch size.
        prepare: see `DeviceData`.
        steps_per_call: steps that one call of the device runs, by `lax.scan`; 0 is the whole
            epoch. The result does not depend on it beyond rounding.

    Returns:
        `(state, data, key) -> (state, metrics)`. The state given is donated: its buffers are
        gone afterwards. Metrics are means over the epoch, read from the device once.

    Raises:
        ValueError: (from the function) the training set is smaller than a batch.
        TrainingDivergedError: (from the function) the loss is not finite.
    """
    method, size = stage.method, stage.batch_size

    @jax.jit
    def draw(key: Array, state: Any, labels: Int[Array, "N"]) -> Int[Array, "s b"]:
        count = labels.shape[0]
        steps = count // size
        if method.sampling is None:
            order = jax.random.permutation(key, count)
        else:
            weights = method.sampling(state)
            order = jax.random.choice(key, count, (count,), p=weights / jnp.sum(weights))
        return order[: steps * size].reshape(steps, size)

    def run(state, raw, meta, ids, key):
        def one(state, batch_ids):
            batch_key = jax.random.fold_in(key, state.step)
            inputs = jax.tree.map(lambda x: x[batch_ids], raw.inputs)
            batch = Batch(prepare(batch_key, inputs), raw.labels[batch_ids], batch_ids)
            return method.step(state, batch, meta)

        if ids.shape[0] == 1:
            return one(state, ids[0])
        state, metrics = jax.lax.scan(one, state, ids)
        return state, jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)

    run = jax.jit(run, donate_argnums=0)

    def epoch(state, data, key):
        count = data.raw.labels.shape[0]
        if count < size:
            raise ValueError(
                f"{stage.name}: the batch size is {size} and the training set has {count} "
                "examples; take a smaller batch."
            )
        draw_key, augment_key = jax.random.split(key)
        ids = draw(draw_key, state, data.raw.labels)
        totals = None
        for part in _parts(ids, steps_per_call):
            state, metrics = run(state, data.raw, data.view.meta, part, augment_key)
            totals = metrics if totals is None else jax.tree.map(jnp.add, totals, metrics)
        return state, _means(stage, totals)

    return epoch


def start(stage: Stage, key: Array, variables: PyTree, data: DeviceData) -> Any:
    """The state in which a stage begins, in buffers of its own, so that it can be donated."""
    return jax.tree.map(jnp.copy, stage.method.init(key, variables, data.view))


def run_stage(
    stage: Stage,
    epoch: EpochFunction,
    state: Any,
    data: DeviceData,
    key: Array,
    first_epoch: int = 0,
) -> Iterator[tuple[int, Any, dict[str, float]]]:
    """Runs a stage's epochs from `first_epoch` on, yielding `(epoch, state, metrics)` after each.

    The random numbers of an epoch depend on `key` and its number alone, so a stage that goes on
    from a state saved after epoch e ends like one that was never interrupted. A yielded state is
    donated when the next epoch starts; copy what must outlive it.

    Args:
        stage: what is run.
        epoch: of `make_epoch`, for this stage.
        state: of `start`, or restored.
        data: the data set.
        key: base key of the stage.
        first_epoch: number of epochs that `state` has behind it.
    """
    for number in range(first_epoch, stage.epochs):
        if number > 0:
            state = jax.tree.map(jnp.copy, stage.method.refresh(state, data.view))
        state, metrics = epoch(state, data, jax.random.fold_in(key, number))
        yield number, state, metrics


def _parts(ids: Int[Array, "s b"], steps_per_call: int) -> list[Int[Array, "t b"]]:
    step = steps_per_call or ids.shape[0]
    return [ids[at : at + step] for at in range(0, ids.shape[0], step)]


def _means(stage: Stage, totals: dict[str, tuple[Float[Array, ""], Float[Array, ""]]]):
    totals = jax.device_get(totals)
    means = {name: float(total / count) for name, (total, count) in totals.items()}
    if not jnp.isfinite(means["loss"]):
        raise TrainingDivergedError(
            f"{stage.name}: the training loss is {means['loss']}; take a smaller learning rate, "
            "or look for inputs that are not finite. The last checkpoint is kept."
        )
    return means
