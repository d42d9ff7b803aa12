"""The loop over a Method: an epoch is one random order of the data and few calls of the device."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, PyTree

from otrw_jax.methods.base import Metrics
from otrw_jax.training.calls import TrainingDivergedError as TrainingDivergedError
from otrw_jax.training.calls import compile_calls, diverged, epoch_key, order_and_steps
from otrw_jax.training.devices import Devices, pick_devices
from otrw_jax.training.stages import Prepare, Stage

AnyIds = TypeVar("AnyIds", Array, np.ndarray)
"""Ids `[... s b]` of the batches of steps, on the device or the host."""

EpochMetrics = dict[str, float] | list[dict[str, float]]
"""Means over an epoch; of each seed, where seeds are trained together."""


class Loop(NamedTuple):
    """A stage, compiled once; keep it. The states are donated: what is given is gone afterwards.

    Its data are `DeviceData`, or `StreamedData` where inputs stay on the disk.

    Attributes:
        stage: what is run.
        start: `(key, variables, data) -> state`, in buffers of its own.
        refresh: `(state, data, key) -> state`, at the start of each epoch but the first.
        epoch: `(state, data, key, tick=None) -> (state, metrics)`; the key is the epoch's, as that
            of `refresh`, and the one of `start` the stage's. `tick` is given the share of the epoch
            that is done, after every call of the device but the last.
    """

    stage: Stage
    start: Callable[..., Any]
    refresh: Callable[..., Any]
    epoch: Callable[..., tuple[Any, EpochMetrics]]


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
    devices = devices or pick_devices()
    if seeds and devices.total > 1:
        raise ValueError("seeds are trained together on one device; take devices=1 or no seeds.")
    calls = compile_calls(stage, prepare, devices, seeds)

    def epoch(state, data, key, tick=None):
        of_order, of_steps = order_and_steps(key)
        ids = calls.draw(state, data, of_order)
        places = devices.share(jnp.arange(ids.shape[-1]))
        meta = calls.meta_in(data, key)
        parts, totals = cut(ids, steps_per_call), None
        for number, part in enumerate(parts):
            part = devices.share(part, axis=1)
            state, metrics = calls.run(state, data.raw, meta, of_steps, part, places)
            if tick is not None and number:  # The device has the next call before it is waited for.
                jax.block_until_ready(totals)
                tick(number / len(parts))
            totals = added(totals, metrics)
        return state, means(stage, totals, seeds)

    return Loop(stage, calls.start, calls.refresh, epoch)


def run_stage(
    loop: Loop,
    state: Any,
    data: Any,
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
        data: the data set, `DeviceData` or, of a loop that streams, `StreamedData`.
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


def check_network(stage: Stage, variables: PyTree) -> None:
    """Refuses a network of which a number is not finite, such as one that is about to be saved.

    Raises:
        TrainingDivergedError: a parameter, or a leaf of its state, has nan or an infinity.
    """
    if not _all_finite(variables):
        raise diverged(stage, "network", "not finite")


@jax.jit
def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    floats = (x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact))
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()


def cut(ids: AnyIds, steps_per_call: int) -> list[AnyIds]:
    """The ids of an epoch's steps by calls of the device; 0 steps a call are all of them."""
    steps = ids.shape[-2]
    size = steps_per_call or steps
    return [ids[..., at : at + size, :] for at in range(0, steps, size)]


def added(totals: Metrics | None, metrics: Metrics) -> Metrics:
    """The sums of metrics so far, None before the first, with those of another call."""
    return metrics if totals is None else jax.tree.map(jnp.add, totals, metrics)


def means(stage: Stage, totals: Metrics, seeds: int = 0) -> EpochMetrics:
    """The means over an epoch of a stage, of its sums; of each seed where there are several.

    Raises:
        TrainingDivergedError: a loss is not finite.
    """
    totals = jax.device_get(totals)
    found = {name: np.float64(total) / count for name, (total, count) in totals.items()}
    for name, what in (("loss", "training loss"), ("ot_loss", "OT loss")):
        if not np.isfinite(found.get(name, 0.0)).all():
            raise diverged(stage, what, found[name])
    if not seeds:
        return {name: float(mean) for name, mean in found.items()}
    return [{name: float(mean[seed]) for name, mean in found.items()} for seed in range(seeds)]
