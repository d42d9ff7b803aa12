"""Samplers against class frequencies counted by hand, and in the loop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.methods.base import Examples, Method, TrainingData
from otrw_jax.samplers import by_weights, class_power, progressive, sampled
from otrw_jax.training.loop import make_loop
from otrw_jax.training.stages import DeviceData, Stage

COUNTS = np.array([60, 0, 30, 1])
LABELS = jnp.asarray(np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS)))


def class_shares(sampler, step=0):
    weights = np.asarray(sampler(jnp.asarray(step), LABELS))
    assert weights.shape == LABELS.shape and (weights >= 0).all()
    for c in range(4):
        assert np.ptp(weights[np.asarray(LABELS) == c]) == 0 if COUNTS[c] else True
    shares = np.bincount(LABELS, weights, 4)
    return shares / shares.sum()


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_a_power_of_the_counts(q):
    powers = np.where(COUNTS > 0, COUNTS.astype(float) ** q, 0)
    np.testing.assert_allclose(class_shares(class_power(4, q)), powers / powers.sum(), rtol=1e-5)


@pytest.mark.parametrize("step", [0, 25, 100, 200])
def test_progressive_goes_from_the_data_to_balance(step):
    share = min(step / 100, 1)
    wanted = (1 - share) * COUNTS / 91 + share * (COUNTS > 0) / 3
    np.testing.assert_allclose(class_shares(progressive(4, 100), step), wanted, rtol=1e-5)


def counting_method():
    """Counts how often each example is seen, at even and at odd places of the batch."""

    def init(key, variables, data):
        return State(jnp.zeros((), jnp.int32), jnp.zeros((2, LABELS.shape[0])))

    def step(state, batch, meta):
        places = jnp.arange(batch.ids.shape[0]) % 2
        one = jnp.ones(())
        seen = state.variables.at[places, batch.ids].add(1.0)
        return State(state.step + 1, seen), {"loss": (one, one), "error": (one, one)}

    return Method(init, step)


class State(NamedTuple):
    step: jax.Array
    variables: jax.Array


def run(method, epochs=40, size=10):
    train = Examples(LABELS, LABELS)
    data = DeviceData(train, TrainingData(train, None, 4))
    loop = make_loop(Stage("s", method, epochs, size), lambda keys, x: x)
    state = loop.start(jax.random.key(0), {}, data)
    for number in range(epochs):
        state, _ = loop.epoch(state, data, jax.random.key(number))
    return np.asarray(state.variables)


def test_the_loop_draws_by_the_sampler():
    seen = run(sampled(counting_method(), class_power(4, 0.0))).sum(0)
    by_class = np.bincount(LABELS, seen, 4)
    assert by_class.sum() == 40 * 90
    np.testing.assert_allclose(by_class, [1200, 0, 1200, 1200], atol=120)


def test_weights_of_the_examples():
    weights = jnp.zeros(91).at[jnp.array([3, 50])].set(jnp.array([1.0, 3.0]))
    seen = run(sampled(counting_method(), by_weights(weights))).sum(0)
    assert seen[3] + seen[50] == 3600
    assert seen[50] == pytest.approx(2700, abs=120)


def test_several_distributions_take_turns_in_a_batch():
    plain, balanced = class_power(4, 1.0), class_power(4, 0.0)

    def both(step, labels):
        return jnp.stack([plain(step, labels), balanced(step, labels)])

    seen = run(sampled(counting_method(), both))
    even, odd = (np.bincount(LABELS, row, 4) for row in seen)
    assert even.sum() == odd.sum() == 3600
    np.testing.assert_allclose(even, 3600 * COUNTS / 91, atol=130)
    np.testing.assert_allclose(odd, [1200, 0, 1200, 1200], atol=130)


@pytest.mark.parametrize("sampler", [class_power(4, 0.0), class_power(4, 0.5), progressive(4, 9)])
def test_labels_of_no_class_are_told_or_never_drawn(sampler):
    padded = jnp.concatenate([LABELS, jnp.array([-1, 4, 255])])
    with pytest.raises(ValueError, match="labels are whole numbers from 0 to 3; -1 is none"):
        sampler(jnp.asarray(9), padded)
    with jax.numpy_dtype_promotion("strict"):
        found = jax.jit(sampler)(jnp.asarray(9), padded)
    np.testing.assert_array_equal(found[-3:], 0)
    wanted = np.asarray(sampler(jnp.asarray(9), LABELS))
    np.testing.assert_allclose(found[:-3] / found.sum(), wanted / wanted.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: class_power(4, np.nan), r"class_power: q is nan; it must be in \[0, 1\]"),
        (lambda: class_power(0, 0.5), "class_power: num_classes is 0"),
        (lambda: progressive(4, 0), "progressive: total_steps is 0; it must be 1 or more"),
        (lambda: by_weights(jnp.array([1, jnp.nan])), "by_weights: weights must be finite"),
        (lambda: by_weights(jnp.ones(3))(0, LABELS), r"weights has shape \(3,\); it must be \(91,"),
    ],
)
def test_what_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()
