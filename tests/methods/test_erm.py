"""ERM against a gradient step written by hand; its parts, its scan, its devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.methods.erm import erm

from . import problem
from .problem import MODEL, assert_trees_close, assert_trees_equal, jit

RATE = 0.3
DATA = problem.make_data()
BATCHES = problem.make_batches(DATA, 5)
FIRST = jax.tree.map(lambda x: x[0], BATCHES)


def start(method, model=MODEL):
    return method.init(jax.random.key(0), problem.make_variables(model), DATA)


@pytest.mark.parametrize("class_weights", [None, (0.5, 1.0, 4.0)])
def test_a_step_by_hand(class_weights):
    """The sum of weighted losses is divided by the batch size, whatever the weights sum to."""
    method = erm(MODEL, optax.sgd(RATE), class_weights=class_weights)
    state = start(method)
    after, metrics = jit(method.step)(state, FIRST, None)
    of_class = jnp.ones(3) if class_weights is None else jnp.array(class_weights)
    params = state.variables["params"]
    gradient = problem.hand_gradient(
        params, FIRST.inputs, FIRST.labels, of_class[FIRST.labels] / 16
    )
    wanted = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
    assert_trees_close(after.variables["params"], wanted)
    losses = problem.hand_losses(params, FIRST.inputs, FIRST.labels)
    np.testing.assert_allclose(metrics["loss"], (losses.sum(), 16), rtol=1e-5)
    assert 0 <= metrics["error"][0] <= metrics["error"][1] == 16
    assert after.step == 1


def test_another_loss():
    method = erm(MODEL, optax.sgd(RATE), loss=lambda logits, labels: 0 * logits[:, 0] + 2.0)
    state = start(method)
    after, metrics = jit(method.step)(state, FIRST, None)
    assert_trees_equal(after.variables, state.variables)
    assert metrics["loss"] == (32.0, 16.0)


def test_the_head_alone():
    method = erm(MODEL, optax.adam(RATE), trainable="head/.*")
    state = start(method)
    after, _ = jit(method.step)(state, FIRST, None)
    before, params = state.variables["params"], after.variables["params"]
    assert_trees_equal(params["backbone"], before["backbone"])
    assert (params["head"]["Dense_0"]["kernel"] != before["head"]["Dense_0"]["kernel"]).any()
    slots = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert len(slots) == 4  # Adam's two moments of kernel and bias, and none of the backbone.


def test_nothing_to_train():
    with pytest.raises(ValueError, match=r"trainable='tail/\.\*' matches no parameter"):
        start(erm(MODEL, optax.sgd(RATE), trainable="tail/.*"))


def test_batch_statistics_move_in_training_mode_alone():
    model = problem.normed_model()
    for batch_norm in (True, False):
        method = erm(model, optax.sgd(RATE), batch_norm=batch_norm)
        state = start(method, model)
        after, _ = jit(method.step)(state, FIRST, None)
        mean = after.variables["state"]["batch_stats"]["BatchNorm_0"]["mean"]
        if batch_norm:
            layer = state.variables["params"]["backbone"]["Dense_0"]
            wanted = 0.01 * (FIRST.inputs @ layer["kernel"] + layer["bias"][None, :]).mean(0)
            np.testing.assert_allclose(mean, wanted, rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_array_equal(mean, np.zeros(6))


def test_scan_is_single_steps():
    method = erm(MODEL, optax.sgd(RATE, momentum=0.9))
    state = start(method)
    scanned, metrics = jit(lambda s, b: jax.lax.scan(lambda s, b: method.step(s, b, None), s, b))(
        state, BATCHES
    )
    step = jit(method.step)
    for i in range(5):
        state, one = step(state, jax.tree.map(lambda x, i=i: x[i], BATCHES), None)
        np.testing.assert_allclose(metrics["loss"][0][i], one["loss"][0], rtol=1e-5)
    assert_trees_close(scanned, state)
    assert scanned.step == 5


@pytest.mark.parametrize("normed", [False, True])
def test_eight_devices_equal_one(normed):
    single_model = problem.normed_model() if normed else MODEL
    spread_model = problem.normed_model("batch") if normed else MODEL
    options = {"class_weights": (0.5, 1.0, 4.0)}
    one = erm(single_model, optax.sgd(RATE, momentum=0.9), **options)
    eight = erm(spread_model, optax.sgd(RATE, momentum=0.9), axis_name="batch", **options)
    state = start(one, single_model)
    spread, spread_metrics = problem.on_eight_devices(eight.step, state, BATCHES, None)
    step = jit(one.step)
    for i in range(5):
        state, metrics = step(state, jax.tree.map(lambda x, i=i: x[i], BATCHES), None)
        at_step = jax.tree.map(lambda x, i=i: x[i], spread_metrics)
        assert_trees_close(at_step, metrics, rtol=1e-3)
    assert_trees_close(spread, state, rtol=1e-3, atol=1e-5)
