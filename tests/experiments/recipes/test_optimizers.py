"""Optimisers of a config against their formulas, and the rates of their schedules."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from experiments.configs import cifar_lt, common
from experiments.recipes.optimizers import learning_rate, make_optimizer

STEPS_PER_EPOCH = 2


def rates(optimizer, epochs):
    """The learning rate of every step, read off updates without momentum and weight decay."""
    config = ConfigDict(optimizer)
    config.momentum = config.weight_decay = 0.0
    transformation = make_optimizer(config, STEPS_PER_EPOCH)
    state, params, gradient = transformation.init(jnp.zeros(())), jnp.zeros(()), jnp.ones(())
    update = optax.with_extra_args_support(transformation).update
    values = []
    for _ in range(epochs * STEPS_PER_EPOCH):
        step, state = update(gradient, state, params)
        values.append(-float(step))
    return np.array(values)


def test_the_learning_rate_falls_at_its_milestones():
    config = cifar_lt.get_config("family=meta")
    found = rates(config.stage1.optimizer, config.stage1.epochs)
    expected = np.repeat([0.1, 1e-3, 1e-5], np.array([160, 20, 20]) * STEPS_PER_EPOCH)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_learning_rate_warms_up_and_then_follows_the_same_schedule():
    found = rates(cifar_lt.get_config("family=ldam").stage1.optimizer, 182)
    warm = 5 * STEPS_PER_EPOCH
    np.testing.assert_allclose(found[:warm], 0.1 * np.arange(warm) / warm, atol=1e-7)
    expected = np.repeat([0.1, 1e-3, 1e-5], np.array([155, 20, 2]) * STEPS_PER_EPOCH)
    np.testing.assert_allclose(found[warm:], expected, rtol=1e-5)


def test_a_cosine_falls_to_zero_at_the_end_after_its_warm_up():
    found = rates(common.sgd(0.2, schedule="cosine", warmup_epochs=1), 1)
    np.testing.assert_allclose(found, 0.2 * np.arange(2) / 2, atol=1e-7)
    config = ConfigDict(common.sgd(0.2, momentum=0.0, schedule="cosine", warmup_epochs=1))
    schedule = learning_rate(config, 10, 5)
    wanted = 0.1 * (1 + np.cos(np.pi * np.arange(40) / 40))
    np.testing.assert_allclose([schedule(10 + step) for step in range(40)], wanted, rtol=1e-4)


def test_a_rate_without_a_schedule_is_constant():
    np.testing.assert_allclose(rates(common.sgd(0.03), 20), 0.03, rtol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_adds_the_decayed_weights_to_the_gradient_before_the_momentum(nesterov):
    optimizer = make_optimizer(
        common.sgd(0.1, momentum=0.8, nesterov=nesterov, weight_decay=0.01), 1
    )
    w, velocity = 2.0, 0.0
    params = jnp.asarray(w)
    state = optimizer.init(params)
    for gradient in (1.0, -0.5, 3.0):
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        decayed = gradient + 0.01 * w
        velocity = 0.8 * velocity + decayed
        w -= 0.1 * (decayed + 0.8 * velocity if nesterov else velocity)
        assert float(params) == pytest.approx(w, rel=1e-5)


def test_adam_adds_the_decayed_weights_to_the_gradient_before_the_moments():
    optimizer = make_optimizer(common.adam(0.1, weight_decay=0.01, milestones=(1,), decay=0.5), 2)
    w, first, second = 2.0, 0.0, 0.0
    params = jnp.asarray(w)
    state = optimizer.init(params)
    for step, gradient in enumerate((1.0, -0.5, 3.0)):
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        decayed = gradient + 0.01 * w
        first, second = 0.9 * first + 0.1 * decayed, 0.999 * second + 0.001 * decayed**2
        mean, square = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        w -= (0.1 if step < 2 else 0.05) * mean / (square**0.5 + 1e-8)
        assert float(params) == pytest.approx(w, rel=1e-5)
