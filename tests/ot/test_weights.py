"""Example weights: the batch's entries taken, stepped and put back."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.ot import weights

OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "nesterov": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.1),
    "schedule": optax.sgd(lambda visit: 1.0 / (1.0 + visit)),
    "decay": optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_example_has_its_own_optimizer(name):
    """Batches in any order: each example goes as if it alone had been optimised."""
    optimizer = OPTIMIZERS[name]
    rng = np.random.default_rng(0)
    initial = rng.uniform(1, 2, 7)
    kept = weights.init_weights(initial, optimizer)

    @jax.jit
    def visit(kept, ids, slopes):
        batch = weights.gather(kept, ids)
        batch, _ = weights.update(batch, lambda v: jnp.vdot(slopes, v**2), optimizer, "none")
        return weights.scatter(kept, ids, batch)

    visits = {i: [] for i in range(7)}
    for _ in range(8):
        ids, slopes = rng.permutation(6)[:3], rng.normal(size=3).astype(np.float32)
        kept = visit(kept, ids, slopes)
        for i, slope in zip(ids, slopes, strict=True):
            visits[i].append(slope)
    assert not visits[6] and max(map(len, visits.values())) > 2
    for i, slopes in visits.items():
        value = jnp.float32(initial[i])
        state = optimizer.init(value)
        for slope in slopes:
            step, state = optimizer.update(2 * slope * value, state, value)
            value = optax.apply_updates(value, step)
        np.testing.assert_allclose(kept.values[i], value, rtol=1e-5)
        own = jax.tree.map(lambda x, i=i: x[i], kept.slots)
        for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_array_equal(kept.initial, np.float32(initial))


def test_gather_and_scatter_touch_the_batch_alone():
    kept = weights.init_weights(jnp.arange(6.0), optax.adam(0.1))
    ids = jnp.array([4, 1])
    batch = weights.gather(kept, ids)
    np.testing.assert_array_equal(batch.values, [4.0, 1.0])
    np.testing.assert_array_equal(batch.initial, [4.0, 1.0])
    changed = batch.replace(values=jnp.array([40.0, 10.0]))
    after = weights.scatter(kept, ids, changed)
    np.testing.assert_array_equal(after.values, [0.0, 10.0, 2.0, 3.0, 40.0, 5.0])
    np.testing.assert_array_equal(after.initial, kept.initial)


def test_mass():
    values = jnp.array([1.0, 3.0, 0.0, 4.0])
    softmax = np.exp(values) / np.exp(values).sum()
    np.testing.assert_allclose(weights.mass(values, "normalize"), [1 / 8, 3 / 8, 0, 1 / 2])
    np.testing.assert_allclose(weights.mass(values, "softmax"), softmax, rtol=1e-6)
    np.testing.assert_allclose(weights.mass(values, "none"), softmax, rtol=1e-6)
    np.testing.assert_allclose(weights.loss_weights(values, "normalize"), [1 / 8, 3 / 8, 0, 1 / 2])
    np.testing.assert_allclose(weights.loss_weights(values, "softmax"), softmax, rtol=1e-6)
    np.testing.assert_array_equal(weights.loss_weights(values, "none"), values)


def test_mass_of_a_batch_without_any_is_uniform():
    np.testing.assert_allclose(weights.mass(jnp.zeros(4), "normalize"), np.full(4, 1 / 4))
    gradient = jax.grad(lambda v: weights.mass(v, "normalize")[0])(jnp.zeros(4))
    assert np.isfinite(gradient).all()


def test_update_with_normalize_is_a_projected_step_on_probabilities():
    values, slopes = np.array([2.0, 1.0, 5.0]), np.array([1.0, 20.0, -3.0])
    batch = weights.init_weights(values, optax.sgd(0.1))
    after, loss = weights.update(batch, lambda v: jnp.vdot(slopes, v), optax.sgd(0.1), "normalize")
    moved = np.maximum(values / 8 - 0.1 * slopes, 0)
    assert moved[1] == 0
    np.testing.assert_allclose(after.values, 8 * moved / moved.sum(), rtol=1e-5)
    np.testing.assert_allclose(loss, slopes @ values / 8, rtol=1e-6)


@pytest.mark.parametrize("simplex", ["softmax", "none"])
def test_update_without_normalize_is_a_plain_step(simplex):
    values, slopes = np.array([2.0, 1.0, 5.0]), np.array([1.0, 20.0, -3.0])
    batch = weights.init_weights(values, optax.sgd(0.1))
    after, loss = weights.update(
        batch, lambda v: jnp.vdot(slopes, weights.mass(v, simplex)), optax.sgd(0.1), simplex
    )
    p = np.exp(values) / np.exp(values).sum()
    np.testing.assert_allclose(loss, slopes @ p, rtol=1e-5)
    np.testing.assert_allclose(after.values, values - 0.1 * p * (slopes - slopes @ p), rtol=1e-5)


# Zero, or far above the numbers that XLA takes for zero.
@hypothesis.given(
    st.lists(st.just(0.0) | st.floats(2**-20, 100, width=32), min_size=4, max_size=4),
    st.lists(st.floats(-1000, 1000, width=32), min_size=4, max_size=4),
)
@hypothesis.settings(deadline=None)
def test_normalize_keeps_the_total_of_the_batch(values, slopes):
    batch = weights.init_weights(np.array(values), optax.sgd(0.01))
    after, _ = weights.update(
        batch, lambda v: jnp.vdot(jnp.array(slopes), v), optax.sgd(0.01), "normalize"
    )
    total = sum(values) if sum(values) > 0 else 1.0
    np.testing.assert_allclose(after.values.sum(), total, rtol=1e-4)
    assert (after.values >= 0).all()


def test_effective_number_example_weights():
    labels = np.repeat([0, 1, 3], [50, 10, 1])
    found = weights.effective_number_example_weights(labels, 4, beta=0.99)
    raw = np.array([(1 - 0.99) / (1 - 0.99**n) for n in (50, 10, 1)])
    np.testing.assert_allclose(found, np.repeat(raw * 4 / raw.sum(), [50, 10, 1]), rtol=1e-5)
    default = weights.effective_number_example_weights(labels, 4)
    raw = np.array([(1 - 0.9999) / (1 - 0.9999**n) for n in (50, 10, 1)])
    np.testing.assert_allclose(default, np.repeat(raw * 4 / raw.sum(), [50, 10, 1]), rtol=1e-5)


def test_labels_of_no_class_have_no_weight():
    labels = np.array([0, 0, 1, -1, 2])
    with pytest.raises(ValueError, match="train labels are whole numbers from 0 to 1; -1 is none"):
        weights.effective_number_example_weights(labels, 2)
    found = jax.jit(lambda y: weights.effective_number_example_weights(y, 2, beta=0.99))(labels)
    wanted = weights.effective_number_example_weights(labels[:3], 2, beta=0.99)
    np.testing.assert_allclose(found, np.append(wanted, [0, 0]), rtol=1e-6)


@pytest.mark.parametrize("simplex", ["normalize", "softmax", "none"])
def test_what_is_not_a_number_stays_none(simplex):
    """In the values, in the gradient, or in the loss alone."""
    values = jnp.array([1.0, jnp.nan, 2.0])
    assert np.isnan(weights.mass(values, simplex)).all()
    batch = weights.init_weights(jnp.ones(3), optax.sgd(0.1))
    for loss in (lambda v: jnp.sum(v * values), lambda v: jnp.sum(v) + jnp.nan):
        after, value = weights.update(batch, loss, optax.sgd(0.1), simplex)
        assert np.isnan(value) and not np.isfinite(weights.mass(after.values, simplex)).any()


def test_update_gives_what_the_loss_gives_beside():
    batch = weights.init_weights(jnp.ones(3), optax.sgd(0.1))
    _, (value, beside) = weights.update(
        batch, lambda v: (jnp.sum(v), "beside"), optax.sgd(0.1), "none", has_aux=True
    )
    assert value == 3 and beside == "beside"


def test_uniform_weights():
    np.testing.assert_array_equal(weights.uniform_weights(3), np.ones(3))


def test_state_can_be_donated():
    """No buffer twice in the state, none of the caller's."""
    initial = jnp.ones(4)
    kept = weights.init_weights(initial, optax.adam(0.1))
    jax.jit(lambda kept: jax.tree.map(lambda x: x + 1, kept), donate_argnums=0)(kept)
    np.testing.assert_array_equal(initial, np.ones(4))
