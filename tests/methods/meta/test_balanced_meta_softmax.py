"""Balanced meta-softmax: its draws against rejection, its steps against unrolled ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.methods.base import Batch, TrainingData
from otrw_jax.methods.meta.balanced_meta_softmax import (
    balanced_meta_softmax,
    posterior_gumbels,
    straight_through_weights,
)
from otrw_jax.methods.meta.meta_loss import meta_batch_of
from tests.methods import problem
from tests.methods.problem import COUNTS, MODEL, assert_trees_close, jit

RATE = 0.3
DATA = problem.make_data()
BATCHES = problem.make_batches(DATA, 3)
FIRST = jax.tree.map(lambda x: x[0], BATCHES)
PHI = jnp.array([0.3, -0.8, 0.1])


def make(model=MODEL, rate_optimizer=None, counts=COUNTS, **options):
    return balanced_meta_softmax(
        model,
        optax.sgd(RATE, momentum=0.9),
        rate_optimizer or optax.sgd(50.0),
        counts,
        **{"virtual_learning_rate": 0.2, **options},
    )


def start(method, model=MODEL):
    return method.init(jax.random.key(0), problem.make_variables(model), DATA)


@pytest.mark.parametrize("label", [0, 1])
def test_the_noise_is_gumbel_noise_whose_argmax_is_the_class(label):
    """Its distribution is that of plain draws of which those with another argmax are rejected."""
    count = 20_000
    keys = jax.random.split(jax.random.key(label), count)
    found = np.asarray(jit(posterior_gumbels)(keys, PHI, jnp.full(count, label)))
    phi = np.asarray(PHI)
    assert ((found + phi).argmax(1) == label).all()
    plain = np.random.default_rng(0).gumbel(size=(200_000, 3))
    wanted = plain[(plain + phi).argmax(1) == label]
    levels = np.linspace(0.02, 0.98, 25)
    for c in range(3):
        below = (found[:, c, None] < np.quantile(wanted[:, c], levels)).mean(0)
        np.testing.assert_allclose(below, levels, atol=0.015)
    # Jointly: the covariances, and the softmax of which the slopes are taken.
    np.testing.assert_allclose(np.cov(found.T), np.cov(wanted.T), atol=0.06)
    soft, other = (np.exp(g + phi)[:, label] / np.exp(g + phi).sum(1) for g in (found, wanted))
    np.testing.assert_allclose(np.quantile(soft, levels), np.quantile(other, levels), atol=0.015)


def test_weights_are_one_with_the_slopes_of_the_softmax():
    noise = np.random.default_rng(0).gumbel(size=(4, 3)).astype(np.float32)
    labels = jnp.array([0, 2, 1, 1])
    both = jit(
        lambda *x: (straight_through_weights(*x), jax.jacobian(straight_through_weights)(*x))
    )
    weights, slopes = both(PHI, noise, labels, 0.5)
    np.testing.assert_array_equal(weights, np.ones(4))
    soft = np.exp((np.float64(PHI) + noise) / 0.5)
    soft /= soft.sum(1, keepdims=True)
    for i, y in enumerate(labels):
        wanted = soft[i, y] * (np.eye(3)[y] - soft[i]) / 0.5
        np.testing.assert_allclose(slopes[i], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("initial", [0.0, 0.3, 1.0])
def test_sampling(initial):
    """Examples are drawn ∝ n_c^-p at first, and classes by softmax(φ) always."""
    method = make(initial=initial)
    state, labels = start(method), np.asarray(DATA.train.labels)
    found = np.asarray(jit(method.sampling)(state, labels))
    wanted = np.float64(COUNTS)[labels] ** -initial
    np.testing.assert_allclose(found, wanted / wanted.sum(), rtol=1e-5)
    found = np.asarray(method.sampling(state.replace(log_rates=PHI), labels))
    wanted = np.exp(PHI) / np.exp(PHI).sum()
    np.testing.assert_allclose(np.bincount(labels, found), wanted, rtol=1e-5)
    for c in range(3):
        assert np.ptp(found[labels == c]) == 0


def test_a_step_is_the_unrolled_one():
    meta_batch, temperature = 5, 0.5
    method = make(
        meta_batch=meta_batch,
        temperature=temperature,
        virtual_learning_rate=lambda step: jnp.where(step == 3, 0.2, 0.0),
    )
    state = start(method).replace(log_rates=PHI, step=jnp.int32(3))
    params = state.variables["params"]
    meta_key, noise_key = jax.random.split(state.key)
    meta = meta_batch_of(DATA.meta, meta_batch, meta_key, state.step)
    noise_key = jax.random.fold_in(noise_key, 3)
    keys = jnp.stack([jax.random.fold_in(noise_key, i) for i in range(16)])
    noise = jit(posterior_gumbels)(keys, PHI, FIRST.labels)

    @jit
    def by_hand(params, phi):
        def losses(params):
            z, head = problem.hand_features(params, FIRST.inputs), params["head"]["Dense_0"]
            logits = z @ head["kernel"] + head["bias"][None, :] + jnp.log(jnp.array(COUNTS))[None]
            p = jax.nn.softmax(logits)
            return -jnp.log(p[jnp.arange(16), FIRST.labels])

        def meta_loss(phi):
            soft = jax.nn.softmax((phi[None] + noise) / temperature)[jnp.arange(16), FIRST.labels]
            weights = 1 + soft - jax.lax.stop_gradient(soft)
            slope = jax.grad(lambda p: jnp.mean(weights * losses(p)))(params)
            virtual = jax.tree.map(lambda p, g: p - 0.2 * g, params, slope)
            return problem.hand_losses(virtual, meta.inputs, meta.labels).mean()

        slope = jax.grad(lambda p: jnp.mean(losses(p)))(params)
        moved = jax.tree.map(lambda p, g: p - RATE * g, params, slope)
        return phi - 50.0 * jax.grad(meta_loss)(phi), moved, losses(params).sum()

    wanted_phi, wanted, total = by_hand(params, PHI)
    after, metrics = jit(method.step)(state, FIRST, DATA.meta)
    assert abs(wanted_phi - PHI).max() > 1e-3
    np.testing.assert_allclose(after.log_rates, wanted_phi, rtol=1e-4, atol=1e-5)
    assert_trees_close(after.variables["params"], wanted)
    np.testing.assert_allclose(metrics["loss"], (total, 16), rtol=1e-5)


def test_what_cannot_be():
    with pytest.raises(ValueError, match="balanced_meta_softmax needs a meta set"):
        make().init(jax.random.key(0), problem.make_variables(), TrainingData(DATA.train, None, 3))
    with pytest.raises(ValueError, match="temperature is 0"):
        make(temperature=0)


def test_eight_devices_equal_one():
    """With a class that has no examples, and batch statistics, which follow the batches alone."""
    options = {"counts": (26, 14, 0), "trainable": "head/.*"}
    model = problem.normed_model()
    one = make(model, **options)
    eight = make(problem.normed_model("batch"), axis_name="batch", **options)
    batches = BATCHES._replace(labels=jnp.minimum(BATCHES.labels, 1))
    first = state = start(one, model)
    rates = one.sampling(state, jnp.minimum(DATA.train.labels, 1))
    np.testing.assert_allclose(rates, np.full(40, 1 / 40), rtol=1e-5)
    spread, spread_metrics = problem.on_eight_devices(eight.step, state, batches, DATA.meta)
    step = jit(one.step)
    mean = np.zeros(6)
    layer = state.variables["params"]["backbone"]["Dense_0"]
    for i in range(3):
        batch = Batch(*(x[i] for x in batches))
        mean = 0.99 * mean + 0.01 * (batch.inputs @ layer["kernel"] + layer["bias"][None]).mean(0)
        state, metrics = step(state, batch, DATA.meta)
        at_step = jax.tree.map(lambda x, i=i: x[i], spread_metrics)
        assert_trees_close(at_step, metrics, rtol=1e-3)
    assert_trees_close(spread, state, rtol=1e-3, atol=1e-4)
    assert (abs(state.log_rates - first.log_rates)[:2] > 1e-3).all()
    assert state.log_rates[2] == first.log_rates[2]
    found = state.variables["state"]["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-6)
    before, params = (x.variables["params"] for x in (first, state))
    assert_trees_close(params["backbone"], before["backbone"], rtol=0, atol=0)
    assert (params["head"]["Dense_0"]["kernel"] != before["head"]["Dense_0"]["kernel"]).any()
