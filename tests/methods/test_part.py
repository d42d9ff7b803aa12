"""The part of a network that is trained: its passes, its gradients, its descent."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.losses import cross_entropy
from otrw_jax.methods.part import Part, TrainState, add_cross_entropy, at_step, untrained
from otrw_jax.paths import named_leaves

from . import problem
from .problem import MODEL, assert_trees_close, assert_trees_equal, jit

DATA = problem.make_data()
BATCH = problem.batch_of(DATA, range(16))
VARIABLES = problem.make_variables()
WHOLE = Part(MODEL, optax.sgd(0.5))
HEAD = dataclasses.replace(WHOLE, trainable="head/.*")
WEIGHTS = jnp.linspace(-1, 2, 16)


def test_a_state_holds_what_its_method_learns():
    key = jax.random.key(3)
    state = HEAD.start(key, VARIABLES)
    assert type(state) is TrainState and state.key is key
    assert_trees_equal(state.variables, VARIABLES)
    drawing_nothing = Part(MODEL, optax.adam(0.1)).start(None, VARIABLES)
    names = set(named_leaves(drawing_nothing))
    assert {name.split("/")[0] for name in names} == {"step", "variables", "opt_state"}
    assert set(named_leaves(untrained(VARIABLES))) == {
        name for name in names if not name.startswith("opt_state")
    }
    with pytest.raises(ValueError, match="trainable='tail' matches no parameter"):
        dataclasses.replace(WHOLE, trainable="tail").start(key, VARIABLES)


@pytest.mark.parametrize("part", [WHOLE, HEAD])
def test_what_is_split_is_joined(part):
    trained, rest = part.split(VARIABLES)
    both = set(named_leaves(trained)), set(named_leaves(rest["params"]))
    assert not both[0] & both[1]
    assert {name.split("/")[0] for name in both[0]} <= {"head", "backbone"}
    assert_trees_equal(part.join(trained, rest), VARIABLES)


def test_the_gradient_of_weighted_losses():
    params = VARIABLES["params"]
    wanted = problem.hand_gradient(params, BATCH.inputs, BATCH.labels, WEIGHTS)
    for part in (WHOLE, HEAD):
        now = part.loss_pass(cross_entropy, BATCH, VARIABLES)
        np.testing.assert_allclose(
            now.losses, problem.hand_losses(params, BATCH.inputs, BATCH.labels), rtol=1e-5
        )
        np.testing.assert_allclose(
            now.features, problem.hand_features(params, BATCH.inputs), rtol=1e-5
        )
        assert now.size == 16 and now.metrics["loss"][0] == pytest.approx(float(now.losses.sum()))
        gradient = now.gradient(WEIGHTS)
        assert_trees_close(gradient["head"], wanted["head"])
        assert bool(jax.tree.leaves(gradient["backbone"])) == (part is WHOLE)
    assert_trees_close(WHOLE.loss_pass(cross_entropy, BATCH, VARIABLES).gradient(WEIGHTS), wanted)


def test_slopes_are_inner_products_of_each_gradient():
    now = HEAD.loss_pass(cross_entropy, BATCH, VARIABLES)
    direction = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size)).reshape(p.shape), now.trained)
    each = jax.vmap(now.gradient)(jnp.eye(16))
    products = jax.tree.map(lambda d, g: jnp.tensordot(g, d, d.ndim), direction, each)
    np.testing.assert_allclose(now.slopes(direction), sum(jax.tree.leaves(products)), rtol=1e-4)


def test_a_descent_counts_moves_and_keeps():
    state = HEAD.start(jax.random.key(3), VARIABLES)
    gradient = HEAD.loss_pass(cross_entropy, BATCH, VARIABLES).gradient(WEIGHTS)
    after = HEAD.descend(state, gradient, {"statistics": jnp.ones(2)})
    assert after.step == 1 and after.key is state.key
    assert_trees_equal(after.variables["params"]["backbone"], VARIABLES["params"]["backbone"])
    wanted = jax.tree.map(lambda p, g: p - 0.5 * g, VARIABLES["params"]["head"], gradient["head"])
    assert_trees_close(after.variables["params"]["head"], wanted)
    assert after.variables["state"] == {"statistics": pytest.approx(1)}


def test_passes_in_either_mode():
    """In training mode the statistics move; of meta examples by the added cross-entropy alone."""
    model = problem.normed_model()
    variables = problem.make_variables(model)
    part = Part(model, optax.sgd(0.5))
    now = part.loss_pass(cross_entropy, BATCH, variables)
    assert not np.allclose(
        *(tree["batch_stats"]["BatchNorm_0"]["mean"] for tree in (now.after, variables["state"]))
    )
    fixed = dataclasses.replace(part, batch_norm=False)
    assert_trees_equal(fixed.loss_pass(cross_entropy, BATCH, variables).after, variables["state"])
    mean = part.mean_gradient(cross_entropy, DATA.meta, now.trained, now.rest)
    none = jax.tree.map(jnp.zeros_like, mean)
    rest = {**now.rest, "state": now.after}
    twice, after = add_cross_entropy(part, 2.0, none, now.trained, rest, DATA.meta)
    assert_trees_close(twice, jax.tree.map(lambda g: 2 * g, mean))
    means = (tree["batch_stats"]["BatchNorm_0"]["mean"] for tree in (after, now.after))
    assert not np.allclose(*means)


def test_devices_sum_what_one_has():
    spread = dataclasses.replace(WHOLE, axis_name="batch")

    def gradient(part, batch, weights):
        now = part.loss_pass(cross_entropy, batch, VARIABLES)
        return now.gradient(weights), now.size

    by_device = jax.tree.map(lambda x: x.reshape(4, 4, *x.shape[1:]), (BATCH, WEIGHTS))
    found = jit(jax.vmap(lambda pair: gradient(spread, *pair), axis_name="batch"))(by_device)
    wanted = jit(lambda: gradient(WHOLE, BATCH, WEIGHTS))()
    for device in range(4):
        assert_trees_close(jax.tree.map(lambda x, d=device: x[d], found), wanted)


def test_a_number_or_its_schedule_at_a_step():
    assert at_step(0.1, jnp.int32(3)) == 0.1
    assert at_step(lambda step: step * 2, 3) == 6
