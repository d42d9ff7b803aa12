"""A stage in its three layouts: alone, spread over eight devices, several seeds together."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from otrw_jax import OTReweighting, erm, ot_reweight
from otrw_jax.methods.presets import paper
from otrw_jax.ot.entropic import EntropicOT
from otrw_jax.training.devices import pick_devices
from otrw_jax.training.loop import make_loop, run_stage
from otrw_jax.training.seeds import stack, unstack
from otrw_jax.training.stages import DeviceData, Stage
from tests.compilations import heard
from tests.methods import problem

EPOCHS, SIZE = 2, 8
SEEDS = (0, 1, 2)
HEAD = OTReweighting(
    ot=EntropicOT(gradient="envelope"),
    trainable="head/.*",
    batch_norm=False,
    meta_features="refresh",
)
GLOBAL = dataclasses.replace(HEAD, weighting="global", reduction="mean")
RELEASED = dataclasses.replace(
    HEAD,
    measure="prototype_input",
    features="eval_pass",
    batch_norm=True,
    meta_batch_norm=True,
    meta_cross_entropy=1.0,
)
METHODS = {
    "erm": None,
    "paper": dataclasses.replace(paper(3), virtual_learning_rate=0.1),
    "global sampling": dataclasses.replace(GLOBAL, sampling=True),
    "dynamic": dataclasses.replace(HEAD, measure="dynamic", measure_size=2),
    "meta by epoch": RELEASED,
    "meta by step": RELEASED,
}


def jittered(keys, inputs):
    return inputs + 0.1 * jax.vmap(lambda key: jax.random.normal(key, inputs.shape[1:]))(keys)


def make_stage(name, devices):
    model = problem.normed_model(devices.axis_name)
    optimizer = optax.sgd(0.05, momentum=0.9)
    if METHODS[name] is None:
        method = erm(model, optimizer, axis_name=devices.axis_name)
    else:
        method = ot_reweight(
            model, optimizer, optax.sgd(0.1), 3, METHODS[name], axis_name=devices.axis_name
        )
    augment_meta = name.removeprefix("meta by ") if name.startswith("meta by ") else "never"
    return Stage("stage", method, EPOCHS, SIZE, augment_meta=augment_meta)


def make_data(seed):
    view = problem.make_data().replace(train=problem.make_examples(problem.COUNTS, 10 + seed))
    return DeviceData(view.train, view, view.meta)


def key_of(seed):
    return jax.random.fold_in(jax.random.key(3), seed)


def variables_of(seed):
    return problem.make_variables(problem.normed_model(), seed)


def run(loop, state, data, key):
    metrics = [(metrics, state) for _, state, metrics in run_stage(loop, state, data, key)]
    return metrics[-1][1], [found for found, _ in metrics]


@functools.cache
def alone(name, seed):
    loop = _loop_alone(name)
    data = make_data(seed)
    return run(loop, loop.start(key_of(seed), variables_of(seed), data), data, key_of(seed))


@functools.cache
def _loop_alone(name):
    return make_loop(make_stage(name, pick_devices()), jittered)


@pytest.mark.parametrize("name", METHODS)
def test_eight_devices_equal_one(name):
    devices = pick_devices(8)
    loop = make_loop(make_stage(name, devices), jittered, steps_per_call=3, devices=devices)
    # The first call of a stage is without the axis; a refresh and the steps are spread.
    first = make_stage(name, pick_devices()).method
    data = devices.replicate(make_data(0))
    state = loop.start(key_of(0), variables_of(0), data)
    if name != "meta by epoch":
        wanted = first.init(key_of(0), variables_of(0), make_data(0).view)
        problem.assert_trees_close(state, wanted, rtol=1e-4)
    state, metrics = run(loop, state, data, key_of(0))
    wanted, wanted_metrics = alone(name, 0)
    problem.assert_trees_close(state, wanted, rtol=2e-3, atol=2e-4)
    for found, expected in zip(metrics, wanted_metrics, strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert all(len(leaf.devices()) == 8 for leaf in jax.tree.leaves(state.variables))


@pytest.mark.parametrize("name", METHODS)
def test_seeds_together_equal_seeds_alone(name):
    loop = make_loop(make_stage(name, pick_devices()), jittered, seeds=len(SEEDS))
    data = stack([make_data(seed) for seed in SEEDS])
    keys = stack([key_of(seed) for seed in SEEDS])
    state = loop.start(keys, stack([variables_of(seed) for seed in SEEDS]), data)
    state, metrics = run(loop, state, data, keys)
    for seed, found in zip(SEEDS, unstack(state, len(SEEDS)), strict=True):
        wanted, wanted_metrics = alone(name, seed)
        problem.assert_trees_close(found, wanted, rtol=1e-3, atol=1e-4)
        for epoch, expected in zip(metrics, wanted_metrics, strict=True):
            assert epoch[seed] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    ends = [
        np.asarray(one.variables["params"]["head"]["Dense_0"]["kernel"])
        for one in unstack(state, 3)
    ]
    assert not np.allclose(ends[0], ends[1])


def test_each_device_may_have_its_own_problem():
    """With a frozen backbone the weights are those of the parts, each a batch on one device."""
    config = dataclasses.replace(HEAD, problem="device", features="loss_pass")
    optimizer, weight_optimizer = optax.sgd(0.05), optax.sgd(0.1)

    def method(axis_name=None):
        return ot_reweight(
            problem.MODEL, optimizer, weight_optimizer, 3, config, axis_name=axis_name
        )

    data = problem.make_data()
    state = method().init(key_of(0), problem.make_variables(), data)
    batches = problem.make_batches(data, 1, size=40)
    spread, metrics = problem.on_eight_devices(method("batch").step, state, batches, data.meta)
    step = problem.jit(method().step)
    heads, losses = [], []
    for part in range(8):
        batch = jax.tree.map(lambda x, part=part: x[0, 5 * part : 5 * part + 5], batches)
        after, found = step(state, batch, data.meta)
        np.testing.assert_allclose(
            spread.weights.values[batch.ids], after.weights.values[batch.ids], rtol=1e-4, atol=1e-5
        )
        heads.append(after.variables["params"]["head"]["Dense_0"]["kernel"])
        losses.append(found["ot_loss"][0])
    # Each part's weights sum to one; the network takes the mean of the parts' steps.
    np.testing.assert_allclose(
        spread.variables["params"]["head"]["Dense_0"]["kernel"], np.mean(heads, 0), atol=1e-5
    )
    np.testing.assert_allclose(metrics["ot_loss"][0][0], np.mean(losses), rtol=1e-4)


@pytest.mark.parametrize("layout", ["alone", "eight devices", "seeds"])
def test_nothing_is_compiled_after_the_second_epoch(layout):
    """The second is the first that is refreshed."""
    devices = pick_devices(8 if layout == "eight devices" else 1)
    stage = dataclasses.replace(make_stage("global sampling", devices), epochs=4)
    seeds = 2 if layout == "seeds" else 0
    loop = make_loop(stage, jittered, devices=devices, seeds=seeds)
    data, key, variables = make_data(0), key_of(0), variables_of(0)
    if seeds:
        data, key, variables = (stack([one, one]) for one in (data, key, variables))
    data = devices.replicate(data)
    seen = []
    with heard() as compiled:
        for _, _, _ in run_stage(loop, loop.start(key, variables, data), data, key):
            seen.append(len(compiled))
    assert seen[0] > 0 and seen[1:] == [seen[1]] * 3


def test_what_does_not_fit_is_told():
    stage = make_stage("erm", pick_devices())
    with pytest.raises(ValueError, match=r"stage: a batch of 8 does not split evenly over 3 dev"):
        make_loop(stage, jittered, devices=pick_devices(3))
    with pytest.raises(ValueError, match="seeds are trained together on one device"):
        make_loop(stage, jittered, devices=pick_devices(8), seeds=3)
