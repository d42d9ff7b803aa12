"""What is compiled of a stage: the draw of an epoch's ids, its steps, what comes before them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Key

from otrw_jax.methods.base import Batch, Examples, Metrics
from otrw_jax.models.unprepared import Unprepared, prepared
from otrw_jax.training.devices import Devices
from otrw_jax.training.seeds import stack, unstack
from otrw_jax.training.stages import Prepare, Stage, check_batch

AT_ONCE = 2**16
"""Examples of which one cumulative sum of their weights serves a draw."""

# Of the keys of a meta set's augmentation, apart from those of the batch's examples and the steps.
_META = 2**32 - 1


class TrainingDivergedError(ArithmeticError):
    """The loss, OT loss, network or distribution of the batches of an epoch is not finite."""


class Calls(NamedTuple):
    """What is compiled of a stage.

    Attributes:
        start: of `Loop`.
        refresh: of `Loop`.
        draw: `(state, data, key of the order) -> ids [s b]`, of the batches of an epoch.
        meta_in: `(data, key of the epoch) -> meta`, as `run` takes it.
        run: `(state, raw, meta, key of the steps, ids [t b], places [b]) -> (state, metrics)`, t
            steps and the sums of their metrics; ids and places as `Devices.share` has them. Where
            inputs are streamed there is a seventh argument, those of the batches `[t b ...]`,
            shared likewise, and `raw` has labels alone.
    """

    start: Callable[..., Any]
    refresh: Callable[..., Any]
    draw: Callable[..., Int[Array, "... s b"]]
    meta_in: Callable[..., Examples | None]
    run: Callable[..., tuple[Any, Metrics]]


def compile_calls(
    stage: Stage, prepare: Prepare, devices: Devices, seeds: int = 0, streamed: bool = False
) -> Calls:
    """Compiles what the epochs of a stage consist of.

    Args:
        stage: as of `make_loop`, and the next three.
        prepare: from stored to network inputs.
        devices: those that share a batch.
        seeds: 0, or a number of seeds trained together.
        streamed: whether inputs are given batch by batch, not taken of a set on the device.

    Raises:
        ValueError: the batch does not split evenly over the devices; (from `draw`) the training
            set is smaller than a batch; (from `start` and the others) a meta set to be augmented is
            not there.
        TrainingDivergedError: (from `draw`) the distribution of the batches is not finite.
    """
    method, size = stage.method, stage.batch_size
    by_step, by_epoch = (stage.augment_meta == often for often in ("step", "epoch"))
    if size % devices.total:
        raise ValueError(
            f"{stage.name}: a batch of {size} does not split evenly over {devices.total} devices; "
            "take another batch size or number of devices."
        )

    def drawn(key: Array, state: Any, labels: Int[Array, "N"]) -> tuple[Int[Array, "s b"], Array]:
        count = labels.shape[0]
        steps = count // size
        if method.sampling is None:
            order = jax.random.permutation(key, count).astype(jnp.int32)
            return order[: steps * size].reshape(steps, size), jnp.asarray(True)
        weights = method.sampling(state, labels)
        if weights.ndim == 1:
            return _drawn(key, weights, steps, size), jnp.isfinite(weights).all()
        keys = jax.random.split(key, weights.shape[0])
        each = [_drawn(*one, steps, size) for one in zip(keys, weights, strict=True)]
        return jnp.stack(each, axis=-1).reshape(steps, -1), jnp.isfinite(weights).all()

    def augmented(key: Array, meta: Examples) -> Examples:
        keys = _keys(jax.random.fold_in(key, _META), jnp.arange(meta.labels.shape[0]))
        if isinstance(meta.inputs, Unprepared):
            inputs = meta.inputs.replace(keys=keys)
            return Examples(prepared(inputs) if by_epoch else inputs, meta.labels)
        return Examples(prepare(keys, meta.inputs), meta.labels)

    def run(state, raw, meta, key, ids, places, given=None):
        def one(state, now):
            batch_ids, inputs = now
            step_key = jax.random.fold_in(key, state.step)
            if not streamed:
                inputs = jax.tree.map(lambda x: x[batch_ids], raw.inputs)
            batch = Batch(
                prepare(_keys(step_key, places), inputs), raw.labels[batch_ids], batch_ids
            )
            seen = augmented(step_key, meta) if by_step and meta is not None else meta
            return method.step(state, batch, seen)

        batches = ids, given
        if ids.shape[0] == 1:
            return one(state, jax.tree.map(lambda x: x[0], batches))
        state, metrics = jax.lax.scan(one, state, batches)
        return state, jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)

    def refresh_here(state, data, place):
        del place
        return method.refresh(state, data)

    if seeds:
        drawn, augmented_outside = jax.vmap(drawn), jax.vmap(augmented)
        run = jax.vmap(run, in_axes=(0, 0, 0, 0, 0, None))
    else:
        augmented_outside = augmented
    drawn, augmented_outside = jax.jit(drawn), jax.jit(augmented_outside)
    spread = (4, 5, 6) if streamed else (4, 5)
    run = devices.compile(run, spread, arguments=len(spread) + 4, donate_argnums=(0,))
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

    def draw(state, data, key):
        labels = data.raw.labels
        check_batch(stage, labels.shape[-1])
        ids, finite = drawn(key, state, labels)
        if not np.all(finite):
            raise diverged(stage, "distribution of the batches", np.nan)
        return ids

    return Calls(start, refresh, draw, meta_in, run)


def epoch_key(key: Array, number: int) -> Array:
    """The key of an epoch of a stage, of each seed where there are keys of several."""
    fold_in = jax.random.fold_in if key.ndim == 0 else jax.vmap(jax.random.fold_in, (0, None))
    return fold_in(key, number)


def order_and_steps(key: Array) -> tuple[Array, Array]:
    """The keys of an epoch's order and of its steps, of each seed where there are keys of several.

    Args:
        key: the epoch's.
    """
    keys = jax.vmap(jax.random.split)(key) if key.ndim else jax.random.split(key)
    return keys[..., 0], keys[..., 1]


def diverged(stage: Stage, what: str, value: Any) -> TrainingDivergedError:
    """The error of a stage of which something is not finite."""
    return TrainingDivergedError(
        f"{stage.name}: the {what} is {value}; take a smaller learning rate, or look for inputs "
        "that are not finite."
    )


def _keys(key: Array, places: Int[Array, "b"]) -> Key[Array, "b"]:
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(places)


def _drawn(key: Array, weights: Float[Array, "N"], steps: int, size: int) -> Int[Array, "s b"]:
    """Ids of so many batches, drawn with replacement."""
    count = weights.shape[0]
    if count > AT_ONCE:
        return drawn_by_blocks(key, weights, (steps, size))
    ids = jax.random.choice(key, count, (steps, size), p=weights / jnp.sum(weights))
    return ids.astype(jnp.int32)


def drawn_by_blocks(
    key: Array, weights: Float[Array, "N"], shape: tuple[int, ...]
) -> Int[Array, "*s"]:
    """Ids by their weights, with replacement: a block of neighbours first, then one of these.

    In one cumulative sum of very many weights in float32 the small ones are rounded away, and a
    uniform number of 23 bits does not reach them all; here both have the square root of N steps.

    Args:
        key: for the draws.
        weights: of the examples, not negative; they need not sum to one.
        shape: of the ids.
    """
    count = weights.shape[0]
    side = math.isqrt(count - 1) + 1
    table = jnp.pad(weights, (0, side * side - count)).reshape(side, side)
    of_block, of_one = jax.random.split(key)
    sums = jnp.cumsum(jnp.sum(table, axis=1))
    target = _uniform(of_block, shape, sums[-1])
    block = first_above(sums[None, :], jnp.zeros(shape, jnp.int32), target)
    within = jnp.cumsum(table, axis=1)
    place = first_above(within, block, _uniform(of_one, shape, within[block, -1]))
    return block * side + place


def first_above(
    rising: Float[Array, "r c"], rows: Int[Array, "*s"], targets: Float[Array, "*s"]
) -> Int[Array, "*s"]:
    """The first column of a row that is above a target, which its last column is.

    Args:
        rising: rows that do not fall.
        rows: those that are searched.
        targets: one for each of these.
    """
    low, high = jnp.zeros_like(rows), jnp.full_like(rows, rising.shape[1] - 1)
    for _ in range(rising.shape[1].bit_length()):
        middle = (low + high) // 2
        above = rising[rows, middle] > targets
        low, high = jnp.where(above, low, middle + 1), jnp.where(above, middle, high)
    return jnp.minimum(low, high)


def _uniform(key: Array, shape: tuple[int, ...], total: Float[Array, "..."]) -> Float[Array, "*s"]:
    """From 0 to a total, which rounding does not reach."""
    below = jnp.nextafter(total, jnp.zeros_like(total))
    return jnp.minimum(jax.random.uniform(key, shape, total.dtype) * total, below)
