"""The loop over a Method: an epoch is one random order of the data and few calls of the device."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Key, PyTree

from otrw_jax.devices import Devices, pick_devices
from otrw_jax.methods.base import Batch, Examples, Method, TrainingData
from otrw_jax.seeds import stack, unstack

Prepare = Callable[[Key[Array, "b"], PyTree], PyTree]
"""`(keys [b], stored inputs [b ...]) -> inputs [b ...]`, with augmentation by a key an example."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a recipe.

    Attributes:
        name: such as `"stage1"`; checkpoints and records carry it.
        method: how it trains.
        epochs: passes over the training set.
        batch_size: examples a step, over all devices (of each distribution, where a method draws
            by several). What is left over at the end of an epoch's random order is not used in
            that epoch.
        feature_copies: of each example's features of the frozen backbone, that stand in place of
            the inputs (`otrw_jax.features`); 0 where it trains on inputs.
    """

    name: str
    method: Method
    epochs: int
    batch_size: int
    feature_copies: int = 0


class DeviceData(NamedTuple):
    """A data set that stays on the device.

    Attributes:
        raw: the stored training examples, N of them, of which batches are taken.
        view: what the method sees beside the batches, prepared without augmentation.
    """

    raw: Examples
    view: TrainingData


class TrainingDivergedError(ArithmeticError):
    """The training or OT loss of an epoch is not finite, or the distribution of its batches."""


Metrics = dict[str, float] | list[dict[str, float]]
"""Means over an epoch; of each seed, where seeds are trained together."""


class Loop(NamedTuple):
    """A stage, compiled once; keep it. The states are donated: what is given is gone afterwards.

    Attributes:
        stage: what is run.
        start: `(key, variables, data) -> state`, in buffers of its own.
        refresh: `(state, data) -> state`, at the start of each epoch but the first.
        epoch: `(state, data, key) -> (state, metrics)`.
    """

    stage: Stage
    start: Callable[[Array, PyTree, DeviceData], Any]
    refresh: Callable[[Any, DeviceData], Any]
    epoch: Callable[[Any, DeviceData, Array], tuple[Any, Metrics]]


def check_batch(stage: Stage, count: int) -> None:
    """Raises a ValueError where a training set of so many examples is smaller than a batch."""
    if count < stage.batch_size:
        raise ValueError(
            f"{stage.name}: the batch size is {stage.batch_size} and the training set has {count} "
            "examples; take a smaller batch."
        )


def make_loop(
    stage: Stage,
    prepare: Prepare,
    *,
    steps_per_call: int = 0,
    devices: Devices | None = None,
    seeds: int = 0,
) -> Loop:
    """Compiles a stage.

    Args:
        stage: method and batch size.
        prepare: from stored to network inputs. The key of an example depends on the step and its
            place in the batch, not on the device it is on.
        steps_per_call: steps that one call of the device runs, by `lax.scan`; 0 is the whole
            epoch. The result does not depend on it beyond rounding.
        devices: those that share a batch; one by default. The method must have been given their
            `axis_name`.
        seeds: 0, or a number of seeds trained together by `jax.vmap`: states, data, variables and
            keys are then stacks of so many (`otrw_jax.seeds`), and each seed's result is, to
            rounding, that which it gets alone.

    Raises:
        ValueError: the batch does not split evenly over the devices, or seeds together are to
            share several devices; (from the epoch) the training set is smaller than a batch.
        TrainingDivergedError: (from the epoch) the loss is not finite.
    """
    method, size = stage.method, stage.batch_size
    devices = devices or pick_devices()
    if size % devices.total:
        raise ValueError(
            f"{stage.name}: a batch of {size} does not split evenly over {devices.total} devices; "
            "take another batch size or number of devices."
        )
    if seeds and devices.total > 1:
        raise ValueError("seeds are trained together on one device; take devices=1 or no seeds.")

    def draw(key: Array, state: Any, labels: Int[Array, "N"]) -> tuple[Int[Array, "s b"], Array]:
        count = labels.shape[0]
        steps = count // size
        if method.sampling is None:
            order = jax.random.permutation(key, count)
            return order[: steps * size].reshape(steps, size), jnp.asarray(True)
        weights = method.sampling(state, labels)
        if weights.ndim == 1:
            return _drawn(key, weights, steps, size), jnp.isfinite(weights).all()
        keys = jax.random.split(key, weights.shape[0])
        each = [_drawn(*one, steps, size) for one in zip(keys, weights, strict=True)]
        return jnp.stack(each, axis=-1).reshape(steps, -1), jnp.isfinite(weights).all()

    def run(state, raw, meta, key, ids, places):
        def one(state, batch_ids):
            step_key = jax.random.fold_in(key, state.step)
            keys = jax.vmap(lambda place: jax.random.fold_in(step_key, place))(places)
            inputs = jax.tree.map(lambda x: x[batch_ids], raw.inputs)
            batch = Batch(prepare(keys, inputs), raw.labels[batch_ids], batch_ids)
            return method.step(state, batch, meta)

        if ids.shape[0] == 1:
            return one(state, ids[0])
        state, metrics = jax.lax.scan(one, state, ids)
        return state, jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)

    def refresh_here(state, data, place):
        del place
        return method.refresh(state, data)

    if seeds:
        draw = jax.vmap(draw)
        run = jax.vmap(run, in_axes=(0, 0, 0, 0, 0, None))
    draw = jax.jit(draw)
    run = devices.compile(run, spread=(4, 5), arguments=6, donate_argnums=(0,))
    if devices.total > 1:
        spread_refresh = devices.compile(refresh_here, spread=(2,), arguments=3)

    def start(key, variables, data):
        if not seeds:
            state = jax.tree.map(jnp.copy, method.init(key, variables, data.view))
            return devices.replicate(state)
        each = zip(key, unstack(variables, seeds), unstack(data.view, seeds), strict=True)
        return stack([method.init(*one) for one in each])

    def refresh(state, data):
        if method.refresh is None:
            return state
        if devices.total > 1:
            return spread_refresh(state, data.view, devices.share(jnp.arange(devices.total)))
        if not seeds:
            return jax.tree.map(jnp.copy, method.refresh(state, data.view))
        each = zip(unstack(state, seeds), unstack(data.view, seeds), strict=True)
        return stack([method.refresh(*one) for one in each])

    def epoch(state, data, key):
        check_batch(stage, data.raw.labels.shape[-1])
        keys = jax.vmap(jax.random.split)(key) if seeds else jax.random.split(key)
        ids, finite = draw(keys[..., 0], state, data.raw.labels)
        if not np.all(finite):
            raise _diverged(stage, "distribution of the batches", np.nan)
        places = devices.share(jnp.arange(ids.shape[-1]))
        totals = None
        for part in _parts(ids, steps_per_call):
            part = devices.share(part, axis=1)
            state, metrics = run(state, data.raw, data.view.meta, keys[..., 1], part, places)
            totals = metrics if totals is None else jax.tree.map(jnp.add, totals, metrics)
        return state, _means(stage, totals, seeds)

    return Loop(stage, start, refresh, epoch)


def run_stage(
    loop: Loop, state: Any, data: DeviceData, key: Array, first_epoch: int = 0
) -> Iterator[tuple[int, Any, Metrics]]:
    """Runs a stage's epochs from `first_epoch` on, yielding `(epoch, state, metrics)` after each.

    The random numbers of an epoch depend on `key` and its number alone, so a stage that goes on
    from a state saved after epoch e ends like one that was never interrupted. A yielded state is
    donated when the next epoch starts; copy what must outlive it.

    Args:
        loop: of `make_loop`.
        state: of `loop.start`, or restored.
        data: the data set.
        key: base key of the stage; keys, `[seeds]`, where seeds are trained together.
        first_epoch: number of epochs that `state` has behind it.
    """
    for number in range(first_epoch, loop.stage.epochs):
        if number > 0:
            state = loop.refresh(state, data)
        fold_in = jax.random.fold_in if key.ndim == 0 else jax.vmap(jax.random.fold_in, (0, None))
        state, metrics = loop.epoch(state, data, fold_in(key, number))
        yield number, state, metrics


def _drawn(key: Array, weights: Float[Array, "N"], steps: int, size: int) -> Int[Array, "s b"]:
    """Ids of so many batches, drawn with replacement."""
    count = weights.shape[0]
    return jax.random.choice(key, count, (steps, size), p=weights / jnp.sum(weights))


def _parts(ids: Int[Array, "... s b"], steps_per_call: int) -> list[Int[Array, "... t b"]]:
    steps = ids.shape[-2]
    size = steps_per_call or steps
    return [ids[..., at : at + size, :] for at in range(0, steps, size)]


def _diverged(stage: Stage, what: str, value: Any) -> TrainingDivergedError:
    return TrainingDivergedError(
        f"{stage.name}: the {what} is {value}; take a smaller learning rate, or look for inputs "
        "that are not finite. The last checkpoint is kept."
    )


def _means(stage: Stage, totals: dict[str, tuple[Float[Array, "..."], Float[Array, "..."]]], seeds):
    totals = jax.device_get(totals)
    means = {name: np.float64(total) / count for name, (total, count) in totals.items()}
    for name, what in (("loss", "training loss"), ("ot_loss", "OT loss")):
        if not np.isfinite(means.get(name, 0.0)).all():
            raise _diverged(stage, what, means[name])
    if not seeds:
        return {name: float(mean) for name, mean in means.items()}
    return [{name: float(mean[seed]) for name, mean in means.items()} for seed in range(seeds)]
