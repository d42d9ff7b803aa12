"""One step of each preset against the same step written by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.methods.ot.reweight import ot_reweight
from otrw_jax.methods.presets import PRESETS
from tests.ot import reference

from . import problem
from .problem import MODEL, NUM_CLASSES, assert_trees_close, assert_trees_equal, jit

RATE, WEIGHT_RATE = 0.3, 0.02
DATA = problem.make_data()
BATCH = problem.batch_of(DATA, np.random.default_rng(0).permutation(40)[:16])
VALUES = np.random.default_rng(1).uniform(0.5, 2.0, 40).astype(np.float32)


def one_step(config, weight_optimizer, values=None):
    """States before and after, metrics; `values` in place of the first weights."""
    method = ot_reweight(MODEL, optax.sgd(RATE), weight_optimizer, NUM_CLASSES, config)
    state = method.init(jax.random.key(0), problem.make_variables(), DATA)
    if values is not None:
        state = state.replace(weights=state.weights.replace(values=jnp.asarray(values)))
    after, metrics = jit(method.step)(state, BATCH, DATA.meta)
    return state, after, metrics


def descend(params, gradient, rate=RATE):
    return jax.tree.map(lambda p, g: p - rate * g, params, gradient)


def assert_others_kept(before, after):
    others = np.setdiff1d(np.arange(40), BATCH.ids)
    np.testing.assert_array_equal(after.weights.values[others], before.weights.values[others])


def test_paper():
    """Virtual step, weight step on the batch's simplex, real step (Algorithm 1)."""
    config = PRESETS["paper"](NUM_CLASSES)
    ot = dataclasses.replace(config.ot, threshold=1e-6, max_iterations=2000)
    config = dataclasses.replace(config, ot=ot, virtual_learning_rate=0.5)
    before, after, metrics = one_step(config, optax.sgd(WEIGHT_RATE), VALUES)

    values = np.float64(VALUES[BATCH.ids])
    p = values / values.sum()
    params = before.variables["params"]
    gradient = problem.hand_gradient(params, BATCH.inputs, BATCH.labels, jnp.float32(p))
    virtual = descend(params, gradient, 0.5)
    z = problem.hand_features(virtual, BATCH.inputs)
    meta_z = problem.hand_features(virtual, DATA.meta.inputs)
    atoms = problem.class_means(meta_z, DATA.meta.labels)
    cost = problem.hand_cost(z, BATCH.labels, atoms, np.arange(NUM_CLASSES))
    third = np.full(NUM_CLASSES, 1 / 3)
    slopes = reference.gradient(p, third, cost, 0.1)
    slopes = slopes - p @ slopes  # Through the division by the sum.
    moved = np.maximum(p - WEIGHT_RATE * slopes, 0)
    p_new = moved / moved.sum()

    np.testing.assert_allclose(
        metrics["ot_loss"][0], reference.loss(p, third, cost, 0.1), rtol=1e-4
    )
    found = np.float64(after.weights.values[BATCH.ids])
    np.testing.assert_allclose(found, p_new * values.sum(), rtol=1e-4, atol=1e-5)
    assert np.abs(found - values).max() > 0.1
    assert_others_kept(before, after)
    gradient = problem.hand_gradient(params, BATCH.inputs, BATCH.labels, jnp.float32(p_new))
    assert_trees_close(after.variables["params"], descend(params, gradient), atol=1e-5)


def test_released():
    """Raw weights, softmax in the OT loss, a sum in the training loss, the meta cross-entropy."""
    config = PRESETS["released"](NUM_CLASSES)
    decay = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(1.0))
    before, after, metrics = one_step(config, decay)

    counts = np.bincount(DATA.train.labels)
    of_class = (1 - 0.9999) / (1 - 0.9999**counts)
    of_class = of_class * NUM_CLASSES / of_class.sum()
    np.testing.assert_allclose(before.weights.values, of_class[DATA.train.labels], rtol=1e-5)

    params = before.variables["params"]
    mean_inputs = problem.class_means(DATA.meta.inputs, DATA.meta.labels)
    atoms = problem.hand_features(params, jnp.float32(mean_inputs))
    z = problem.hand_features(params, BATCH.inputs)
    cost = problem.hand_cost(z, BATCH.labels, atoms, np.arange(NUM_CLASSES), 0.5, 1 / NUM_CLASSES)
    cost = jnp.float32(cost)

    def three_iterations(values):
        log_a, f = jax.nn.log_softmax(values), jnp.zeros(16)
        for _ in range(3):
            g = 0.1 * (np.log(1 / 3) - jax.nn.logsumexp((f[:, None] - cost) / 0.1, axis=0))
            f = 0.1 * (log_a - jax.nn.logsumexp((g[None, :] - cost) / 0.1, axis=1))
        return jnp.sum(cost * jnp.exp((f[:, None] + g[None, :] - cost) / 0.1))

    values = before.weights.values[BATCH.ids]
    value, slopes = jax.jit(jax.value_and_grad(three_iterations))(values)
    new_values = values - (slopes + 5e-4 * values)
    np.testing.assert_allclose(metrics["ot_loss"][0], value, rtol=1e-5)
    np.testing.assert_allclose(after.weights.values[BATCH.ids], new_values, rtol=1e-5, atol=1e-5)
    assert np.abs(slopes).max() > 1e-3
    assert_others_kept(before, after)

    of_batch = problem.hand_gradient(params, BATCH.inputs, BATCH.labels, new_values)
    of_meta = problem.hand_gradient(
        params, DATA.meta.inputs, DATA.meta.labels, jnp.full((12,), 10 / 12)
    )
    head = descend(descend(params, of_batch), of_meta)["head"]
    assert_trees_close(after.variables["params"]["head"], head, atol=1e-5)
    assert_trees_equal(after.variables["params"]["backbone"], params["backbone"])


@pytest.mark.parametrize("sampling", [False, True])
def test_global(sampling):
    """Closed-form weights of all examples; the head's step on the mean of weighted losses."""
    config = PRESETS["global"](NUM_CLASSES, sampling=sampling)
    before, after, metrics = one_step(config, optax.sgd(WEIGHT_RATE))
    params = before.variables["params"]
    z = problem.hand_features(params, DATA.train.inputs)
    meta_z = problem.hand_features(params, DATA.meta.inputs)
    atoms = problem.class_means(meta_z, DATA.meta.labels)
    cost = problem.hand_cost(z, DATA.train.labels, atoms, np.arange(NUM_CLASSES))
    kernel = np.exp(-cost / 0.1)
    wanted = 40 * (kernel / kernel.sum(0)).mean(1)
    np.testing.assert_allclose(before.weights.values, wanted, rtol=1e-4)
    np.testing.assert_array_equal(after.weights.values, before.weights.values)
    assert "ot_loss" not in metrics

    used = np.ones(16) if sampling else wanted[BATCH.ids]
    gradient = problem.hand_gradient(params, BATCH.inputs, BATCH.labels, jnp.float32(used / 16))
    head = descend(params, gradient)["head"]
    assert_trees_close(after.variables["params"]["head"], head)
    assert_trees_equal(after.variables["params"]["backbone"], params["backbone"])
    method = ot_reweight(MODEL, optax.sgd(RATE), optax.sgd(RATE), NUM_CLASSES, config)
    if sampling:
        np.testing.assert_array_equal(
            method.sampling(before, DATA.train.labels), before.weights.values
        )
    else:
        assert method.sampling is None
