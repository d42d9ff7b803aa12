"""The released preset against what the authors' program computes on a small problem.

The values below are what the stage-2 function of DandanGuo1993/reweight-imbalance-classification-
with-OT (`train_OT` of OT_train.py, with the combined cost and prototypes) leaves behind, run in
PyTorch 2.13 on the numbers of `make_problem`: two epochs of three batches, SGD of rate 0.01 on the
last layer. Batch normalisation keeps the biased running variance there too, as flax does.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax import cross_entropy
from otrw_jax.methods.base import Batch, Examples, TrainingData
from otrw_jax.methods.ot.reweight import ot_reweight
from otrw_jax.methods.presets import released
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import flax_model

from .problem import jit

K, DIM, WIDTH = 3, 6, 5
ITERATIONS = (3, 2, 2, 4, 2, 2)  # Of their Sinkhorn loop, which stops by a threshold.
OT_LOSSES = (0.33302497, 0.38362445, 0.22150365, 0.21005408, 0.29539327, 0.10914463)
# fmt: off
MOVED = (
    -7.525086e-05, 0.0001499057, -0.000416398, 0.00042665, 0.0004803538, 0.0002279878,
    -8.270144e-05, -0.0007783175, -0.0002520084, 0.0002002716, 5.671382e-05, -0.0007607341,
    -7.098913e-05, 0.0002694428, 0.0001874268, 0.0003268123, 0.0001941025, -0.0002484024,
    4.130602e-05, -0.0002472997, -0.0004926622, 0.0007659197, 0.0002154112, -0.0002818108,
)
KERNEL = (
    -0.620051, 0.4864523, 0.4265445, -0.2240564, -0.4638562, 0.555968, -0.4597443, -0.3790824,
    -2.302523, 0.803216, -0.4812396, 0.07847754, 0.7364128, -0.4051121, -1.110974,
)
BIAS = (-0.4394187, 0.5878906, -0.4811348)
MEAN = (-2.953507, 3.603028, -0.6730558, -1.674653, 0.3821214)
VARIANCE = (2.92685, 17.3865, 2.886444, 15.78938, 5.092301)
# fmt: on


class Backbone(nn.Module):
    """A layer, batch normalisation with PyTorch's constants, ReLU."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(WIDTH)(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x))


MODEL = flax_model(Backbone(), LinearHead(K))


def make_problem():
    """Training data, batches in order, and the network's variables."""
    rng = np.random.RandomState(0)
    labels = rng.permutation(np.repeat(np.arange(K), (14, 7, 3)))
    means = rng.normal(size=(K, DIM))
    inputs = np.float32(means[labels] + rng.normal(size=(24, DIM)))
    meta_labels = np.repeat(np.arange(K), 4)
    meta_inputs = np.float32(means[meta_labels] + rng.normal(size=(12, DIM)))
    first = {"kernel": rng.normal(size=(DIM, WIDTH)), "bias": rng.normal(size=WIDTH)}
    norm = {"scale": rng.uniform(0.5, 1.5, WIDTH), "bias": rng.normal(size=WIDTH)}
    statistics = {"mean": rng.normal(size=WIDTH), "var": rng.uniform(1.0, 6.0, WIDTH)}
    head = {"kernel": rng.normal(size=(WIDTH, K)), "bias": rng.normal(size=K)}
    variables = {
        "params": {
            "backbone": {"Dense_0": first, "BatchNorm_0": norm},
            "head": {"Dense_0": head},
        },
        "state": {"batch_stats": {"BatchNorm_0": statistics}},
    }
    train, meta = (
        Examples(jnp.asarray(x), jnp.asarray(y, jnp.int32))
        for x, y in ((inputs, labels), (meta_inputs, meta_labels))
    )
    batches = [
        Batch(train.inputs[ids], train.labels[ids], ids)
        for ids in jnp.arange(24, dtype=jnp.int32).reshape(3, 8)
    ]
    return TrainingData(train, meta, K), batches, jax.tree.map(jnp.float32, variables)


def run(config, iterations):
    """The state at the start and at the end, and the OT losses of the steps."""
    data, batches, variables = make_problem()
    sgd = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.01, 0.9, nesterov=True))
    raw = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.01))

    def method_of(count):
        ot = dataclasses.replace(config.ot, max_iterations=count)
        with_count = dataclasses.replace(config, ot=ot)
        return ot_reweight(MODEL, sgd, raw, K, with_count, loss=cross_entropy)

    methods = {count: method_of(count) for count in set(iterations)}
    steps = {count: jit(method.step) for count, method in methods.items()}
    method = methods[iterations[0]]
    first = state = method.init(jax.random.key(0), variables, data)
    losses = []
    for number, count in enumerate(iterations):
        if number == len(batches):
            state = method.refresh(state, data)
        state, metrics = steps[count](state, batches[number % len(batches)], data.meta)
        losses.append(float(metrics["ot_loss"][0]))
    return first, state, losses


@pytest.fixture(scope="module")
def ours():
    with jax.numpy_rank_promotion("allow"):
        return run(released(K), ITERATIONS)


def test_the_steps_are_those_of_the_authors_program(ours):
    first, last, losses = ours
    np.testing.assert_allclose(losses, OT_LOSSES, rtol=1e-5)
    moved = last.weights.values - first.weights.values
    np.testing.assert_allclose(moved, MOVED, atol=3e-7)
    head = last.variables["params"]["head"]["Dense_0"]
    np.testing.assert_allclose(np.ravel(head["kernel"]), KERNEL, rtol=2e-5)
    np.testing.assert_allclose(head["bias"], BIAS, rtol=2e-5)
    statistics = last.variables["state"]["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(statistics["mean"], MEAN, rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], VARIANCE, rtol=1e-5)


def test_mean_inputs_in_evaluation_mode_are_another_program(ours, rank_promotion):
    """The stored values tell the modes apart."""
    config = dataclasses.replace(released(K), meta_batch_norm=False)
    first, last, losses = run(config, ITERATIONS)
    assert np.abs(np.array(losses) - OT_LOSSES).max() > 0.05
    moved = last.weights.values - first.weights.values
    assert np.abs(moved - np.array(MOVED)).max() > 1e-4


def test_three_iterations_stand_for_the_threshold(rank_promotion):
    """Theirs stop after two to four, here mostly two; the preset always takes three."""
    first, last, _ = run(released(K), (3,) * 6)
    moved = last.weights.values - first.weights.values
    assert np.corrcoef(moved, MOVED)[0, 1] > 0.9
