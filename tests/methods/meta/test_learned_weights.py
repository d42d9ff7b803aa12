"""Hu et al.'s weights against automatic differentiation through an unrolled virtual step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.methods.meta.learned_weights import learned_weights
from otrw_jax.methods.meta.meta_loss import meta_batch_of
from tests.methods import problem
from tests.methods.problem import MODEL, assert_trees_close, jit

RATE, VIRTUAL, TAU = 0.3, 0.05, 2.0
DATA = problem.make_data()
META = DATA.meta
BATCHES = problem.make_batches(DATA, 2)
FIRST = jax.tree.map(lambda x: x[0], BATCHES)
PHI = np.random.default_rng(1).uniform(0.1, 2.0, 40).astype(np.float32)


def make(optimizer=None, **options):
    options = {"virtual_learning_rate": VIRTUAL, "tau": TAU, "meta_batch": 5, **options}
    return learned_weights(MODEL, optimizer or optax.sgd(RATE), **options)


def make_scheduled(**options):
    def rate(step):
        return jnp.where(step < 3, VIRTUAL, 2 * VIRTUAL)

    return make(virtual_learning_rate=rate, regularisation=0.3, **options)


def make_adam(**options):
    return make(optax.adam(0.02, eps=1e-3), virtual="optimizer", **options)


SCHEDULED = make_scheduled()
SCHEDULED_STEP = jit(SCHEDULED.step)
ADAM_STEP = jit(make_adam().step)


def start(method):
    state = method.init(jax.random.key(0), problem.make_variables(), DATA)
    np.testing.assert_array_equal(state.weights, np.ones(40))
    return state.replace(weights=jnp.asarray(PHI))


def meta_loss_of(params, meta):
    return problem.hand_losses(params, meta.inputs, meta.labels).mean()


def hand_phi(phi, slope):
    return jnp.maximum(phi / TAU - slope, 1e-5)


def check(after, state, phi):
    """φ of the batch, and of no other example; the network's step by φ over their sum."""
    found = np.asarray(after.weights)
    np.testing.assert_allclose(found[FIRST.ids], phi, rtol=1e-4, atol=1e-6)
    others = np.setdiff1d(np.arange(40), FIRST.ids)
    np.testing.assert_array_equal(found[others], PHI[others])
    params = state.variables["params"]
    gradient = problem.hand_gradient(params, FIRST.inputs, FIRST.labels, phi / phi.sum())
    return params, gradient


def test_steps_by_hand():
    """On both sides of a schedule's drop, with a pull towards the start."""
    state = start(SCHEDULED)
    params = state.variables["params"]

    @jit
    def by_hand(params, phi, meta, rate):
        def objective(phi):
            gradient = problem.hand_gradient(params, FIRST.inputs, FIRST.labels, phi)
            virtual = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
            return meta_loss_of(virtual, meta) + 0.15 * jnp.sum((phi - 1) ** 2)

        return hand_phi(phi, jax.grad(objective)(phi))

    for number, rate in ((0, VIRTUAL), (3, 2 * VIRTUAL)):
        after, metrics = SCHEDULED_STEP(state.replace(step=jnp.int32(number)), FIRST, META)
        drawn = meta_batch_of(META, 5, state.key, number)
        phi = by_hand(params, jnp.asarray(PHI[FIRST.ids]), drawn, rate)
        assert 0 < (phi == np.float32(1e-5)).sum() < 16  # Both sides of the floor.
        _, gradient = check(after, state, phi)
        wanted = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
        assert_trees_close(after.variables["params"], wanted)
        assert after.step == number + 1
    losses = problem.hand_losses(params, FIRST.inputs, FIRST.labels)
    np.testing.assert_allclose(metrics["loss"], (losses.sum(), 16), rtol=1e-5)


def test_a_virtual_step_of_the_optimizer():
    """Adam's step of each example alone, from its present moments, as in the authors' program."""
    state, _ = ADAM_STEP(start(make_adam()), FIRST, META)
    state = state.replace(weights=jnp.asarray(PHI))
    after, _ = ADAM_STEP(state, FIRST, META)
    params, drawn = state.variables["params"], meta_batch_of(META, 5, state.key, 1)
    (moments, *_) = state.opt_state

    @jit
    def by_hand(params, phi):
        def delta(gradient, mean, square):
            first = 0.9 * mean + 0.1 * gradient
            second = 0.999 * square + 0.001 * gradient**2
            return -0.02 * (first / (1 - 0.9**2)) / (jnp.sqrt(second / (1 - 0.999**2)) + 1e-3)

        each = jax.jacrev(lambda p: problem.hand_losses(p, FIRST.inputs, FIRST.labels))(params)
        each_delta = jax.vmap(delta, in_axes=(0, None, None))
        deltas = jax.tree.map(each_delta, each, moments.mu, moments.nu)

        def objective(phi):
            virtual = jax.tree.map(lambda p, d: p + jnp.tensordot(phi, d, 1), params, deltas)
            return meta_loss_of(virtual, drawn)

        return hand_phi(phi, jax.grad(objective)(phi))

    check(after, state, by_hand(params, jnp.asarray(PHI[FIRST.ids])))


def test_no_meta_set():
    with pytest.raises(ValueError, match="learned_weights needs a meta set: take meta_per_class"):
        make().init(jax.random.key(0), problem.make_variables(), DATA.replace(meta=None))


def test_errors():
    with pytest.raises(ValueError, match=r"tau is 0\.5; it must be 1 or more"):
        make(tau=0.5)
    with pytest.raises(ValueError, match="virtual is 'adam'; choose 'gradient' or 'optimizer'"):
        make(virtual="adam")


@pytest.mark.parametrize("virtual", ["gradient", "optimizer"])
def test_eight_devices_equal_one(virtual):
    make_one, step = {
        "gradient": (make_scheduled, SCHEDULED_STEP),
        "optimizer": (make_adam, ADAM_STEP),
    }[virtual]
    state = start(make_one())
    eight = make_one(axis_name="batch")
    spread, spread_metrics = problem.on_eight_devices(eight.step, state, BATCHES, META)
    for i in range(2):
        state, metrics = step(state, jax.tree.map(lambda x, i=i: x[i], BATCHES), META)
        at_step = jax.tree.map(lambda x, i=i: x[i], spread_metrics)
        assert_trees_close(at_step, metrics, rtol=1e-3)
    assert_trees_close(spread, state, rtol=1e-3, atol=1e-5)
