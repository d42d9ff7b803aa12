"""A meta set that is prepared as it passes the network: the steps of one that was prepared."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax import ot_reweight
from otrw_jax.methods.base import Examples, TrainingData
from otrw_jax.methods.presets import paper
from otrw_jax.models.unprepared import Unprepared, prepared, preparing
from otrw_jax.training.devices import pick_devices
from otrw_jax.training.loop import make_loop, run_stage
from otrw_jax.training.stages import DeviceData, Stage
from tests.training.test_streaming import KEY, MODEL, K, assert_equal, in_memory, prepare, run


def evaluate(stored):
    return stored.astype(jnp.float32) / 16


DATA = in_memory()
STORED = DATA.raw_meta
UNPREPARED = Unprepared(STORED.inputs, prepare, evaluate)


def trained(often, devices, choices, model, meta, raw_meta):
    """State and metrics of two epochs."""
    config = dataclasses.replace(paper(K), virtual_learning_rate=0.1, **choices)
    optimizer = optax.sgd(0.1, momentum=0.9)
    method = ot_reweight(model, optimizer, optax.sgd(0.1), K, config, axis_name=devices.axis_name)
    stage = Stage("stage1", method, 2, 8, augment_meta=often)
    loop = make_loop(stage, prepare, steps_per_call=4, devices=devices)
    labels = TrainingData(Examples(None, DATA.raw.labels), meta, K)
    return run(run_stage, loop, devices.replicate(DeviceData(DATA.raw, labels, raw_meta)))


@pytest.mark.parametrize(
    ("often", "devices", "choices"),
    [
        ("never", 1, {}),
        ("never", 2, {"meta_features": "refresh"}),
        ("never", 1, {"measure": "prototype_input"}),
        ("epoch", 1, {"measure": "prototype_input", "meta_features": "refresh"}),
        ("step", 1, {"measure": "whole", "meta_cross_entropy": 1.0}),
    ],
)
def test_steps_are_those_of_a_meta_set_that_was_prepared(often, devices, choices):
    given = often, pick_devices(devices), choices
    whole = Examples(jax.jit(evaluate)(STORED.inputs), STORED.labels)
    wanted = trained(*given, MODEL, whole, STORED)
    meta = Examples(UNPREPARED, STORED.labels)
    found = trained(*given, preparing(MODEL), meta, meta)
    if often == "never" and "meta_features" not in choices:  # One with the network's first layer.
        for a, b in zip(
            *(jax.tree.leaves(one[0].variables) for one in (found, wanted)), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    else:
        assert_equal(found, wanted)


def test_rows_are_prepared_like_the_whole():
    keys = jax.random.split(KEY, 6)
    inputs, rows = UNPREPARED.replace(keys=keys), np.array([4, 1])
    wanted = prepare(keys, STORED.inputs)
    np.testing.assert_allclose(prepared(inputs), wanted, atol=1e-6)
    taken = jax.tree.map(lambda x: x[rows], inputs)
    np.testing.assert_allclose(prepared(taken), wanted[rows], atol=1e-6)
    assert prepared(wanted) is wanted
