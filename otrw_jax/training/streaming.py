"""The loop over a Method whose training inputs stay on the disk, read by the ids that it draws."""

import collections
import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int, PyTree

from otrw_jax.methods.base import Examples, Metrics, TrainingData
from otrw_jax.training.calls import compile_calls, epoch_key, order_and_steps
from otrw_jax.training.devices import Devices, pick_devices
from otrw_jax.training.loop import EpochMetrics, Loop, added, cut, means
from otrw_jax.training.stages import Prepare, Stage

AHEAD = 2
"""Calls of the device whose inputs lie on it before their turn."""


@runtime_checkable
class Inputs(Protocol):
    """Stored inputs of examples, on the disk, such as `otrw_jax.data.streams.Stream`."""

    def __len__(self) -> int:
        """The number of examples."""

    def batches(
        self, ids: Int[np.ndarray, "n"], size: int
    ) -> contextlib.AbstractContextManager[Iterator[PyTree]]:
        """Opens the inputs of examples, in the order of their ids.

        It gives NumPy arrays `[size, ...]`, the last of as many inputs as are left.
        """


class StreamedData(NamedTuple):
    """A data set whose training inputs stay on the disk.

    Attributes:
        inputs: the stored training inputs, N of them.
        view: what the method sees beside the batches: labels of the training set without its
            inputs, and the meta set, on the devices (`Devices.replicate`).
        raw_meta: the meta set as it is stored, for stages that augment it; None elsewhere.
    """

    inputs: Inputs
    view: TrainingData
    raw_meta: Examples | None = None

    @property
    def raw(self) -> Examples:
        """What of the training set is on the device: labels."""
        return Examples(None, self.view.train.labels)


class Underway(NamedTuple):
    """An epoch that has begun.

    One that goes on from it ends as if it had never stopped: bit for bit on one device of the same
    kind, to rounding on another number of devices or processes.

    Attributes:
        state: of the method.
        ids: of the epoch's batches, all of them, over all processes.
        done: steps that are behind it.
        totals: sums of their metrics.
        examples: N, of the training set; None where an earlier version saved it.
    """

    state: Any
    ids: Int[np.ndarray, "s b"]
    done: int
    totals: Metrics
    examples: int | None


Save = Callable[[int, Underway], None]
"""`(number of the epoch, what is done of it)`; the state is donated thereafter."""


def make_streaming_loop(
    stage: Stage, prepare: Prepare, *, steps_per_call: int = 1, devices: Devices | None = None
) -> Loop:
    """Compiles a stage, as `make_loop`, for `StreamedData` in place of `DeviceData`.

    The same inputs give the same steps as `make_loop` with as many steps a call. Of several
    processes each reads its part of a batch. While the device runs a call, the inputs of the next
    two are on it, and those after them are read.

    Args:
        stage: method and batch size.
        prepare: from stored to network inputs, inside the compiled call.
        steps_per_call: steps that one call of the device runs, whose inputs it is given together;
            0 puts those of a whole epoch on the device.
        devices: those that share a batch; one by default.

    Returns:
        A loop for `run_streamed`. Its `epoch` takes two arguments more, by name: `begun`, an
        `Underway` in place of a fresh epoch, and `save`, which is given one after each call but the
        last.

    Raises:
        ValueError: the method reads all training inputs, or is given features that are kept; the
            batch does not split evenly over the devices; (from the epoch) the training set is
            smaller than a batch, has another number of labels than of inputs, or is not the one
            that the epoch began with.
        TrainingDivergedError: (from the epoch) the loss is not finite.
    """
    _check_streamable(stage)
    devices = devices or pick_devices()
    calls = compile_calls(stage, prepare, devices, streamed=True)

    def epoch(state, data, key, tick=None, *, begun=None, save=None):
        _check_data(stage, data, begun)
        of_order, of_steps = order_and_steps(key)
        if begun is None:
            ids, done, totals = np.asarray(calls.draw(state, data, of_order)), 0, None
        else:
            state, totals = devices.replicate((begun.state, begun.totals))
            ids, done = begun.ids, int(begun.done)
        steps, width = ids.shape
        places = devices.share(jnp.arange(width))
        meta = calls.meta_in(data, key)
        with contextlib.closing(_placed(data.inputs, ids[done:], steps_per_call, devices)) as read:
            for part, inputs in read:
                shared = devices.share(jnp.asarray(part), axis=1)
                state, metrics = calls.run(state, data.raw, meta, of_steps, shared, places, inputs)
                if totals is not None:  # The device has the next call before it is waited for.
                    jax.block_until_ready(totals)
                    if tick is not None:
                        tick(done / steps)
                totals, done = added(totals, metrics), done + len(part)
                if save is not None and done < steps:
                    save(Underway(state, ids, done, totals, len(data.inputs)))
        return state, means(stage, totals)

    return Loop(stage, calls.start, calls.refresh, epoch)


def run_streamed(
    loop: Loop,
    state: Any,
    data: StreamedData,
    key: Array,
    first_epoch: int = 0,
    tick: Callable[[float], None] | None = None,
    *,
    begun: Underway | None = None,
    save: Save | None = None,
) -> Iterator[tuple[int, Any, EpochMetrics]]:
    """Runs a stage's epochs, as `run_stage`, from the middle of one where it has begun.

    Args:
        loop: of `make_streaming_loop`.
        state: of `loop.start`, or restored; not used where an epoch has begun.
        data: the data set.
        key: base key of the stage.
        first_epoch: number of epochs that are behind, the one that has begun not among them.
        tick: of `Loop.epoch`.
        begun: of epoch `first_epoch`, what is done of it.
        save: is given each epoch's number and what is done of it, after each call of the device
            but the last of an epoch (`otrw_jax.training.underway.Saver`).
    """

    for number in range(first_epoch, loop.stage.epochs):
        now = epoch_key(key, number)
        if number > 0 and begun is None:
            state = loop.refresh(state, data, now)
        of_this = None if save is None else functools.partial(save, number)
        state, metrics = loop.epoch(state, data, now, tick, begun=begun, save=of_this)
        begun = None
        yield number, state, metrics


def placed_batches(
    inputs: Inputs, ids: Int[np.ndarray, "n"], size: int, place: Callable[[PyTree], PyTree]
) -> Generator[PyTree, None, None]:
    """Batches of inputs, of which two more are on the devices when one is given.

    Args:
        inputs: on the disk.
        ids: of those that are wanted, in order.
        size: of a batch.
        place: puts a batch on the devices.
    """
    with inputs.batches(ids, size) as read:
        placed = collections.deque[PyTree]()
        for batch in read:
            placed.append(place(batch))
            if len(placed) > AHEAD:
                yield placed.popleft()
        while placed:
            yield placed.popleft()


def check_one_of_both(where: str, inputs: Inputs, labels: int) -> None:
    """Raises a ValueError where inputs on the disk are not as many as their labels.

    Args:
        where: what the message begins with.
        inputs: on the disk.
        labels: how many.
    """
    if len(inputs) != labels:
        raise ValueError(
            f"{where}: there are {len(inputs)} streamed inputs and {labels} labels; give each "
            "example one of both."
        )


def _placed(
    inputs: Inputs, ids: Int[np.ndarray, "s b"], steps_per_call: int, devices: Devices
) -> Generator[tuple[Int[np.ndarray, "t b"], PyTree], None, None]:
    """The ids of each call of the device, and this process's inputs of them `[t b ...]`."""
    own, parts = devices.own(ids, axis=1), cut(ids, steps_per_call)
    width = own.shape[1]

    def place(batch):
        return jax.tree.map(
            lambda x: devices.share_own(x.reshape(-1, width, *x.shape[1:]), axis=1), batch
        )

    batches = placed_batches(inputs, own.reshape(-1), len(parts[0]) * width, place)
    with contextlib.closing(batches):
        yield from zip(parts, batches, strict=True)


def _check_streamable(stage: Stage) -> None:
    if stage.method.reads_inputs:
        raise ValueError(
            f"{stage.name}: the method reads all training inputs at the start of an epoch, and "
            "streamed ones stay on the disk; train it on features of them, or on inputs that fit "
            "on the device (make_loop)."
        )
    if stage.feature_copies:
        raise ValueError(
            f"{stage.name}: feature_copies is {stage.feature_copies}, and features that are kept "
            "are on the device; take 0 to stream inputs, or make_loop."
        )


def _check_data(stage: Stage, data: StreamedData, begun: Underway | None) -> None:
    labels = data.raw.labels.shape[0]
    check_one_of_both(stage.name, data.inputs, labels)
    if begun is not None and begun.examples not in (None, labels):
        raise ValueError(
            f"{stage.name}: the epoch that has begun is of {begun.examples} examples, and there "
            f"are {labels}; go on with the data that it began with."
        )
    steps = labels // stage.batch_size
    if begun is not None and len(begun.ids) != steps:
        raise ValueError(
            f"{stage.name}: the epoch that has begun has {len(begun.ids)} steps, and {labels} "
            f"examples in batches of {stage.batch_size} make {steps}; go on with the data and the "
            "batch size that it began with."
        )
    if begun is not None and begun.ids.shape[1] % stage.batch_size:
        raise ValueError(
            f"{stage.name}: the epoch that has begun has batches of {begun.ids.shape[1]}, not of "
            f"{stage.batch_size}; go on with the batch size that it began with."
        )
