"""L2RW against gradients of each example written out; its meta batches, its edges, its devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.losses import cross_entropy
from otrw_jax.methods.base import Examples
from otrw_jax.methods.meta.l2rw import l2rw
from otrw_jax.methods.meta.meta_loss import meta_batch_of
from tests.methods import problem
from tests.methods.problem import MODEL, assert_trees_close, assert_trees_equal, jit

RATE = 0.3
DATA = problem.make_data()
META = DATA.meta
BATCHES = problem.make_batches(DATA, 2)
FIRST = jax.tree.map(lambda x: x[0], BATCHES)

MOMENTUM = optax.sgd(RATE, momentum=0.9)
NORMED_MODEL = problem.normed_model()
NORMED = l2rw(NORMED_MODEL, MOMENTUM, meta_batch=7)
NORMED_STEP = jit(NORMED.step)


def start(method, model=MODEL):
    return method.init(jax.random.key(0), problem.make_variables(model), DATA)


@jit
def hand_step(params, meta):
    """Eqs. 7-9 as they stand: the gradient in ε of the meta loss after a virtual step."""

    def meta_loss(epsilon):
        gradient = problem.hand_gradient(params, FIRST.inputs, FIRST.labels, epsilon)
        virtual = jax.tree.map(lambda p, g: p - 0.7 * g, params, gradient)
        return problem.hand_losses(virtual, meta.inputs, meta.labels).mean()

    raw = jnp.maximum(0, -jax.grad(meta_loss)(jnp.zeros(16)))
    weights = raw / raw.sum()
    gradient = problem.hand_gradient(params, FIRST.inputs, FIRST.labels, 2 * weights)
    return weights, jax.tree.map(lambda p, g: p - RATE * g, params, gradient)


def test_steps_by_hand():
    """On the meta batches of two steps, with a training loss that is not the meta loss."""
    method = l2rw(MODEL, optax.sgd(RATE), loss=lambda *pair: 2 * cross_entropy(*pair), meta_batch=5)
    state = start(method)
    params = state.variables["params"]
    step = jit(method.step)
    for number in (0, 1):
        after, metrics = step(state.replace(step=jnp.int32(number)), FIRST, META)
        drawn = meta_batch_of(META, 5, jax.random.key(0), number)
        weights, wanted = hand_step(params, drawn)
        assert 2 < (weights == 0).sum() < 14  # Both sides of the maximum.
        assert_trees_close(after.variables["params"], wanted)
        assert after.step == number + 1
    losses = problem.hand_losses(params, FIRST.inputs, FIRST.labels)
    np.testing.assert_allclose(metrics["loss"], (2 * losses.sum(), 16), rtol=1e-5)
    assert 0 <= metrics["error"][0] <= metrics["error"][1] == 16


def test_the_weights_are_inner_products_of_gradients():
    """With batch statistics, where a loss depends on its whole batch."""
    model = NORMED_MODEL
    state = start(NORMED, model)
    after, _ = NORMED_STEP(state, FIRST, META)
    drawn = meta_batch_of(META, 7, state.key, 0)
    params = state.variables["params"]
    losses = problem.normed_losses(model, state.variables["state"])

    @jit
    def gradients(params):
        each, moved = jax.jacrev(losses, has_aux=True)(params, FIRST)
        return each, moved, jax.grad(lambda p: losses(p, drawn)[0].mean())(params)

    each, moved, other = gradients(params)
    products = jax.tree.map(
        lambda e, o: np.float64(e).reshape(16, -1) @ np.float64(o).ravel(), each, other
    )
    raw = np.maximum(sum(jax.tree.leaves(products)), 0)
    weights = raw / raw.sum()
    wanted = jax.tree.map(
        lambda p, e: p - RATE * np.tensordot(weights, np.float64(e), 1), params, each
    )
    assert_trees_close(after.variables["params"], wanted, rtol=1e-3, atol=1e-5)
    assert_trees_close(after.variables["state"], moved)  # By the training batch alone.


def test_the_head_alone_in_evaluation_mode():
    method = l2rw(NORMED_MODEL, optax.sgd(RATE), batch_norm=False, trainable="head/.*")
    state = start(method, NORMED_MODEL)
    after, _ = jit(method.step)(state, FIRST, META)
    before, found = state.variables, after.variables
    assert_trees_equal(found["state"], before["state"])
    assert_trees_equal(found["params"]["backbone"], before["params"]["backbone"])
    kernels = (v["params"]["head"]["Dense_0"]["kernel"] for v in (before, found))
    assert (next(kernels) != next(kernels)).any()


def test_all_weights_zero():
    """The gradient of the one example opposes that of the meta loss."""
    method = l2rw(MODEL, optax.sgd(RATE), loss_meta=lambda *pair: -cross_entropy(*pair))
    state = start(method)
    one = jax.tree.map(lambda x: x[:1], FIRST)
    after, _ = jit(method.step)(state, one, Examples(one.inputs, one.labels))
    assert_trees_equal(after.variables, state.variables)


def test_the_draw_of_a_meta_batch():
    """Without replacement, another at each step, all of them in the long run; or the whole set."""
    key, seen = jax.random.key(3), set()
    for step in range(12):
        rows = [tuple(row) for row in np.asarray(meta_batch_of(META, 5, key, step).inputs)]
        assert len(set(rows)) == 5
        seen.update(rows)
    assert len(seen) == 12
    assert meta_batch_of(META, 12, key, 0) is META


def test_no_meta_set():
    method = l2rw(MODEL, optax.sgd(RATE))
    with pytest.raises(ValueError, match="l2rw needs a meta set: take meta_per_class of 1 or more"):
        method.init(jax.random.key(0), problem.make_variables(), DATA.replace(meta=None))


def test_eight_devices_equal_one():
    model = problem.normed_model("batch")
    eight = l2rw(model, MOMENTUM, meta_batch=7, axis_name="batch")
    state = start(NORMED, NORMED_MODEL)
    spread, spread_metrics = problem.on_eight_devices(eight.step, state, BATCHES, META)
    for i in range(2):
        state, metrics = NORMED_STEP(state, jax.tree.map(lambda x, i=i: x[i], BATCHES), META)
        at_step = jax.tree.map(lambda x, i=i: x[i], spread_metrics)
        assert_trees_close(at_step, metrics, rtol=1e-3)
    assert_trees_close(spread, state, rtol=1e-3, atol=1e-5)
