"""The meta set of a stage: as it is, or augmented anew at each epoch or step."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.methods.base import Method
from otrw_jax.training.loop import make_loop, run_stage
from otrw_jax.training.stages import Stage
from tests.training.log_method import (
    EPOCHS,
    KEY,
    SIZE,
    STEPS,
    LogState,
    log_method,
    make_data,
    prepare,
)

STAGE = Stage("stage1", log_method(), EPOCHS, SIZE)


def meta_of(often, epochs=3):
    """What the method saw of the meta set: at the start, at each refresh, and in each step."""
    steps, seen = epochs * STEPS, []

    def init(key, variables, data):
        seen.append(data.meta.inputs)
        return LogState(*(jnp.zeros(()) for _ in range(6)), variables).replace(
            step=jnp.zeros((), jnp.int32), meta=jnp.zeros((steps, 2))
        )

    def step(state, batch, meta):
        count = jnp.ones(())
        state = state.replace(step=state.step + 1, meta=state.meta.at[state.step].set(meta.inputs))
        return state, {"loss": (count, count), "error": (count, count)}

    def refresh(state, data):
        seen.append(data.meta.inputs)
        return state

    method = Method(init, step, refresh)
    loop = make_loop(Stage("stage1", method, epochs, SIZE, augment_meta=often), prepare)
    data = make_data()
    state = loop.start(KEY, jnp.zeros(()), data)
    *_, (_, state, _) = run_stage(loop, state, data, KEY)
    return np.asarray(seen), np.asarray(state.meta).reshape(epochs, STEPS, 2)


def test_the_meta_set_as_it_is():
    refreshed, by_step = meta_of("never")
    assert (refreshed == [1.5, 2.5]).all() and (by_step == [1.5, 2.5]).all()


def test_the_meta_set_augmented_anew_at_each_epoch():
    """The refresh of an epoch and its steps see the same, another one than other epochs."""
    refreshed, by_step = meta_of("epoch")
    assert (by_step == refreshed[:, None]).all()
    jitter = refreshed - [1.5, 2.5]
    assert (jitter >= 0).all() and (jitter < 1).all() and len(np.unique(jitter)) == jitter.size


def test_the_meta_set_augmented_anew_at_each_step():
    refreshed, by_step = meta_of("step")
    assert (refreshed == [1.5, 2.5]).all()
    jitter = by_step - [1.5, 2.5]
    assert (jitter >= 0).all() and (jitter < 1).all()
    assert len(np.unique(jitter.round(6))) == jitter.size


def test_what_cannot_be_augmented_is_told():
    with pytest.raises(ValueError, match="augment_meta is 'often'; choose never, epoch, step"):
        Stage("stage1", STAGE.method, 1, SIZE, augment_meta="often")
    loop = make_loop(dataclasses.replace(STAGE, augment_meta="epoch"), prepare)
    with pytest.raises(ValueError, match=r"a meta set to be augmented is DeviceData\.raw_meta"):
        loop.start(KEY, jnp.zeros(()), make_data()._replace(raw_meta=None))
