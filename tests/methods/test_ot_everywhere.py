"""OT re-weighting in the loop: every preset under float64, with inputs that are not numbers, and
what its metrics say of the solver."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax import ot_reweight
from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.methods.ot.weight_net import ot_weight_net
from otrw_jax.methods.presets import PRESETS, global_weights
from otrw_jax.ot.entropic import EntropicOT
from otrw_jax.ot.nets import MLPWeightNet
from otrw_jax.training.loop import TrainingDivergedError, make_loop, run_stage
from otrw_jax.training.seeds import stack
from otrw_jax.training.stages import DeviceData, Stage

from . import problem

KEY = jax.random.key(0)
CONFIGS = {name: preset(3) for name, preset in PRESETS.items()}
CONFIGS["global sampling"] = global_weights(3, sampling=True)
UNCONVERGED = EntropicOT(max_iterations=1, newton=False)


def make_method(name, ot=None):
    sgd = optax.sgd(0.05)
    if name == "net":
        config = OTReweighting(trainable="head/.*", ot=ot or EntropicOT())
        return ot_weight_net(problem.MODEL, sgd, MLPWeightNet(4), sgd, 3, config)
    config = CONFIGS[name]
    if ot is not None:
        config = dataclasses.replace(config, ot=ot)
    return ot_reweight(problem.MODEL, sgd, sgd, 3, config)


def train(name, data=None, ot=None, seeds=0):
    """Two epochs: the last state, and the metrics of both."""
    loop = make_loop(
        Stage("stage2", make_method(name, ot), 2, 8), lambda keys, inputs: inputs, seeds=seeds
    )
    data, variables, key = data or problem.make_data(), problem.make_variables(), KEY
    data = DeviceData(data.train, data)
    if seeds:
        data, variables, key = (stack([x] * seeds) for x in (data, variables, key))
    state = loop.start(key, variables, data)
    epochs = [(state, metrics) for _, state, metrics in run_stage(loop, state, data, key)]
    return epochs[-1][0], [metrics for _, metrics in epochs]


NAMES = ["paper", "released", "global", "global sampling", "net"]


@functools.cache
def in_float32(name):
    return train(name)


@pytest.mark.parametrize("name", NAMES)
def test_where_float64_is_enabled(name):
    """Inputs and parameters stay float32, and so does the state; an epoch's draws are others."""
    _, wanted = in_float32(name)
    with jax.enable_x64(True):
        state, metrics = train(name)
    floats = [x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype(jnp.float32)}
    assert metrics[0].keys() == wanted[0].keys()
    assert all(np.isfinite(value) for value in metrics[1].values())


@pytest.mark.parametrize("name", NAMES)
def test_a_meta_example_that_is_not_a_number_ends_the_training(name):
    data = problem.make_data()
    meta = data.meta._replace(inputs=data.meta.inputs.at[3, 1].set(jnp.nan))
    with pytest.raises(TrainingDivergedError, match=r"stage2: the .* is nan; take a smaller"):
        train(name, data.replace(meta=meta))


@pytest.mark.parametrize("name", ["paper", "net"])
def test_metrics_say_which_problems_did_not_converge(name):
    _, metrics = in_float32(name)
    for epoch in metrics:
        assert epoch["ot_unconverged"] == 0 and 0 < epoch["ot_marginal_error"] < 1e-4
    _, metrics = train(name, ot=UNCONVERGED, seeds=2)
    for seed in metrics[0]:
        assert seed["ot_unconverged"] == 1 and seed["ot_marginal_error"] > 1e-3


def test_a_number_of_iterations_that_is_asked_for_is_no_failure():
    _, metrics = in_float32("released")
    assert "ot_unconverged" not in metrics[0] and metrics[0]["ot_marginal_error"] > 0
    assert "ot_loss" not in in_float32("global")[1][0]


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("feature_weight", np.nan, "0 or more and finite"),
        ("label_weight", np.inf, "0 or more and finite"),
        ("virtual_learning_rate", np.nan, "0 or more and finite"),
        ("meta_cross_entropy", -1.0, "0 or more and finite"),
        ("measure_size", 0, "1 or more and whole"),
        ("measure_size", 2.5, "1 or more and whole"),
    ],
)
def test_numbers_out_of_range_are_refused(name, value, wanted):
    with pytest.raises(ValueError, match=rf"OTReweighting: {name} is {value}; it must be {wanted}"):
        OTReweighting(**{name: value})
