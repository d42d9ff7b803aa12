"""The loop over a Method: an epoch is one random order of the data and few calls of the device."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key, PyTree

from otrw_jax.methods.base import Batch, Examples, Method, TrainingData
from otrw_jax.training.devices import Devices, pick_devices
from otrw_jax.training.seeds import stack, unstack

# Of the keys of a meta set's augmentation, apart from those of the batch's examples and the steps.
_META = 2**32 - 1

MetaAugmentation = Literal["never", "epoch", "step"]

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
            the inputs (`otrw_jax.training.features`); 0 where it trains on inputs.
        augment_meta: how often the meta set goes through the augmentation of the training examples
            anew: never, so that it stays as it is, at each epoch, or at each step.

    Raises:
        ValueError: another `augment_meta`.
    """

    name: str
    method: Method
    epochs: int
    batch_size: int
    feature_copies: int = 0
    augment_meta: MetaAugmentation = "never"

    def __post_init__(self):
        if self.augment_meta not in get_args(MetaAugmentation):
            raise ValueError(
                f"augment_meta is {self.augment_meta!r}; choose "
                f"{', '.join(get_args(MetaAugmentation))}."
            )


class DeviceData(NamedTuple):
    """A data set that stays on the device.

    Attributes:
        raw: the stored training examples, N of them, of which batches are taken.
        view: what the method sees beside the batches, prepared without augmentation.
        raw_meta: the meta set as it is stored, for stages that augment it; None elsewhere.
    """

    raw: Examples
    view: TrainingData
    raw_meta: Examples | None = None


class TrainingDivergedError(ArithmeticError):
    """The loss, OT loss, network or distribution of the batches of an epoch is not finite."""


EpochMetrics = dict[str, float] | list[dict[str, float]]
"""Means over an epoch; of each seed, where seeds are trained together."""


class Loop(NamedTuple):
    """A stage, compiled once; keep it. The states are donated: what is given is gone afterwards.

    Attributes:
        stage: what is run.
        start: `(key, variables, data) -> state`, in buffers of its own.
        refresh: `(state, data, key) -> state`, at the start of each epoch but the first.
        epoch: `(state, data, key, tick=None) -> (state, metrics)`; the key is the epoch's, as that
            of `refresh`, and the one of `start` the stage's. `tick` is given the share of the epoch
            that is done, after every call of the device but the last.
    """

    stage: Stage
    start: Callable[[Array, PyTree, DeviceData], Any]
    refresh: Callable[[Any, DeviceData, Array], Any]
    epoch: Callable[..., tuple[Any, EpochMetrics]]


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
            keys are then stacks of so many (`otrw_jax.training.seeds`), and each seed's result is,
            to rounding, that which it gets alone.

    Raises:
        ValueError: the batch does not split evenly over the devices, or seeds together are to
            share several devices; (from the epoch) the training set is smaller than a batch.
        TrainingDivergedError: (from the epoch) the loss is not finite.
    """
    method, size = stage.method, stage.batch_size
    by_step, by_epoch = (stage.augment_meta == often for often in ("step", "epoch"))
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

    def augmented(key: Array, meta: Examples) -> Examples:
        keys = _keys(jax.random.fold_in(key, _META), jnp.arange(meta.labels.shape[0]))
        return Examples(prepare(keys, meta.inputs), meta.labels)

    def run(state, raw, meta, key, ids, places):
        def one(state, batch_ids):
            step_key = jax.random.fold_in(key, state.step)
            inputs = jax.tree.map(lambda x: x[batch_ids], raw.inputs)
            batch = Batch(
                prepare(_keys(step_key, places), inputs), raw.labels[batch_ids], batch_ids
            )
            seen = augmented(step_key, meta) if by_step and meta is not None else meta
            return method.step(state, batch, seen)

        if ids.shape[0] == 1:
            return one(state, ids[0])
        state, metrics = jax.lax.scan(one, state, ids)
        return state, jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)

    def refresh_here(state, data, place):
        del place
        return method.refresh(state, data)

    if seeds:
        draw, augmented_outside = jax.vmap(draw), jax.vmap(augmented)
        run = jax.vmap(run, in_axes=(0, 0, 0, 0, 0, None))
    else:
        augmented_outside = augmented
    draw, augmented_outside = jax.jit(draw), jax.jit(augmented_outside)
    run = devices.compile(run, spread=(4, 5), arguments=6, donate_argnums=(0,))
    if devices.total > 1:
        spread_refresh = devices.compile(refresh_here, spread=(2,), arguments=3)

    def meta_in(data, key):
        """The meta set of an epoch, as stored where each step augments it."""
        if stage.augment_meta == "never" or data.view.meta is None:
            return data.view.meta
        if data.raw_meta is None:
            raise ValueError(f"{stage.name}: a meta set to be augmented is DeviceData.raw_meta.")
        return augmented_outside(key, data.raw_meta) if by_epoch else data.raw_meta

    def view_in(data, key):
        return data.view.replace(meta=meta_in(data, key)) if by_epoch else data.view

    def start(key, variables, data):
        view = view_in(data, epoch_key(key, 0))
        if not seeds:
            state = jax.tree.map(jnp.copy, method.init(key, variables, view))
            return devices.replicate(state)
        each = zip(key, unstack(variables, seeds), unstack(view, seeds), strict=True)
        return stack([method.init(*one) for one in each])

    def refresh(state, data, key):
        if method.refresh is None:
            return state
        view = view_in(data, key)
        if devices.total > 1:
            return spread_refresh(state, view, devices.share(jnp.arange(devices.total)))
        if not seeds:
            return jax.tree.map(jnp.copy, method.refresh(state, view))
        each = zip(unstack(state, seeds), unstack(view, seeds), strict=True)
        return stack([method.refresh(*one) for one in each])

    def epoch(state, data, key, tick=None):
        check_batch(stage, data.raw.labels.shape[-1])
        keys = jax.vmap(jax.random.split)(key) if seeds else jax.random.split(key)
        ids, finite = draw(keys[..., 0], state, data.raw.labels)
        if not np.all(finite):
            raise _diverged(stage, "distribution of the batches", np.nan)
        places = devices.share(jnp.arange(ids.shape[-1]))
        meta = meta_in(data, key)
        parts, totals = _parts(ids, steps_per_call), None
        for number, part in enumerate(parts):
            part = devices.share(part, axis=1)
            state, metrics = run(state, data.raw, meta, keys[..., 1], part, places)
            if tick is not None and number:  # The device has the next call before it is waited for.
                jax.block_until_ready(totals)
                tick(number / len(parts))
            totals = metrics if totals is None else jax.tree.map(jnp.add, totals, metrics)
        return state, _means(stage, totals, seeds)

    return Loop(stage, start, refresh, epoch)


def run_stage(
    loop: Loop,
    state: Any,
    data: DeviceData,
    key: Array,
    first_epoch: int = 0,
    tick: Callable[[float], None] | None = None,
) -> Iterator[tuple[int, Any, EpochMetrics]]:
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
        tick: of `Loop.epoch`.
    """
    for number in range(first_epoch, loop.stage.epochs):
        now = epoch_key(key, number)
        if number > 0:
            state = loop.refresh(state, data, now)
        state, metrics = loop.epoch(state, data, now, tick)
        yield number, state, metrics


def epoch_key(key: Array, number: int) -> Array:
    """The key of an epoch of a stage, of each seed where there are keys of several."""
    fold_in = jax.random.fold_in if key.ndim == 0 else jax.vmap(jax.random.fold_in, (0, None))
    return fold_in(key, number)


def check_finite(stage: Stage, variables: PyTree) -> None:
    """Refuses a network of which a number is not finite, such as one that is about to be saved.

    Raises:
        TrainingDivergedError: a parameter, or a leaf of its state, has nan or an infinity.
    """
    if not _all_finite(variables):
        raise _diverged(stage, "network", "not finite")


@jax.jit
def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    floats = (x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact))
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()


def _keys(key: Array, places: Int[Array, "b"]) -> Key[Array, "b"]:
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(places)


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
        "that are not finite."
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
