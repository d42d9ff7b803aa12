"""BBN against its formulas written by hand: the mixed step, the samplings, the two passes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.losses import focal
from otrw_jax.methods.bbn import bbn, conventional_share
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import flax_model

from . import problem
from .problem import COUNTS, NUM_CLASSES, assert_trees_close, assert_trees_equal, jit

RATE = 0.3
TOTAL, EPOCH = 12, 3
MODEL = flax_model(MLP((10, 8), branches=2), LinearHead(NUM_CLASSES))
DATA = problem.make_data()
BATCHES = problem.make_batches(DATA, 5)
FIRST = jax.tree.map(lambda x: x[0], BATCHES)


class Normed(nn.Module):
    """A layer with batch normalisation that is shared, and one for each branch."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        def layer(x, width, name):
            x = nn.Dense(width, name="dense" + name)(x)
            norm = nn.BatchNorm(not train, axis_name=self.axis_name, name="norm" + name)
            return nn.relu(norm(x))

        x = layer(x, 6, "")
        return jnp.concatenate([layer(x, 4, "_branch1"), layer(x, 4, "_branch2")], axis=-1)


def normed_model(axis_name=None):
    return flax_model(Normed(axis_name), LinearHead(NUM_CLASSES))


def make(model=MODEL, optimizer=None, **options):
    optimizer = optimizer or optax.sgd(RATE)
    return bbn(model, optimizer, COUNTS, TOTAL, steps_per_epoch=EPOCH, **options)


def start(method, model=MODEL, step=0):
    state = method.init(jax.random.key(0), problem.make_variables(model), DATA)
    return state.replace(step=jnp.int32(step))


METHOD = make()
STEP = jit(METHOD.step)
NORMED = normed_model()
NORMED_METHOD = make(NORMED)
NORMED_STEP = jit(NORMED_METHOD.step)


def test_the_share_of_the_conventional_branch():
    """The epochs' numbers over that of all epochs, squared, from one; never under zero."""
    steps = np.arange(TOTAL + 2 * EPOCH)
    found = jax.vmap(lambda step: conventional_share(step, TOTAL, EPOCH))(steps)
    by_epoch = [1, 1 - (1 / 4) ** 2, 1 - (2 / 4) ** 2, 1 - (3 / 4) ** 2, 0, 0]
    np.testing.assert_allclose(found, np.repeat(by_epoch, EPOCH), rtol=1e-6)
    np.testing.assert_allclose(conventional_share(5, 10, 1), 0.75, rtol=1e-6)


def plain_losses(params, batch, alpha):
    """Of each pair, and the logits: with plain array operations."""

    def layer(x, part):
        return jnp.maximum(x @ part["kernel"] + part["bias"][None, :], 0)

    body, head = params["backbone"], params["head"]["Dense_0"]
    trunk = layer(batch.inputs, body["Dense_0"])
    f_c = layer(trunk[0::2], body["Dense_1_branch1"])
    f_r = layer(trunk[1::2], body["Dense_1_branch2"])
    logits = 2 * alpha * f_c @ head["kernel"][:8] + 2 * (1 - alpha) * f_r @ head["kernel"][8:]
    logits += head["bias"][None, :]
    p = jnp.exp(logits) / jnp.exp(logits).sum(1, keepdims=True)
    pairs = jnp.arange(len(f_c))
    y_c, y_r = batch.labels[0::2], batch.labels[1::2]
    return -alpha * jnp.log(p[pairs, y_c]) - (1 - alpha) * jnp.log(p[pairs, y_r]), logits


@jit
@jax.grad
def hand_gradient(params, batch, alpha):
    return plain_losses(params, batch, alpha)[0].mean()


@pytest.mark.parametrize("step", [0, 7])
def test_a_step_by_hand(step):
    state = start(METHOD, step=step)
    after, metrics = STEP(state, FIRST, None)
    alpha = 1 - (step // EPOCH * EPOCH / TOTAL) ** 2
    params = state.variables["params"]
    losses, logits = jit(plain_losses)(params, FIRST, alpha)
    gradient = hand_gradient(params, FIRST, alpha)
    wanted = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
    assert_trees_close(after.variables["params"], wanted)
    np.testing.assert_allclose(metrics["loss"], (losses.sum(), 8), rtol=1e-5)
    wrong = [(np.argmax(logits, 1) != FIRST.labels[half::2]).sum() for half in (0, 1)]
    mixed = alpha * wrong[0] + (1 - alpha) * wrong[1]
    np.testing.assert_allclose(metrics["error"], (mixed, 8), rtol=1e-5)
    assert after.step == step + 1


def test_in_the_first_epoch_the_second_branch_stands_still():
    state = start(METHOD)
    after, _ = STEP(state, FIRST, None)
    before, params = state.variables["params"], after.variables["params"]
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), params, before)["backbone"]
    assert moved["Dense_0"]["kernel"]
    assert moved["Dense_1_branch1"]["kernel"]
    assert not any(moved["Dense_1_branch2"].values())


def test_another_loss_and_the_head_alone():
    method = make(loss=focal(2.0), trainable="head/.*")
    state = start(method, step=7)
    after, metrics = jit(method.step)(state, FIRST, None)
    before, params = state.variables["params"], after.variables["params"]
    assert_trees_equal(params["backbone"], before["backbone"])
    assert (params["head"]["Dense_0"]["kernel"] != before["head"]["Dense_0"]["kernel"]).any()
    _, plain = STEP(state.replace(opt_state=start(METHOD).opt_state), FIRST, None)
    assert 0 < metrics["loss"][0] < plain["loss"][0]


@pytest.mark.parametrize("batch_norm", [True, False])
def test_running_statistics(batch_norm):
    """Those of the trunk move by one half and then the other; a branch's by its own half."""
    step = NORMED_STEP if batch_norm else jit(make(NORMED, batch_norm=False).step)
    state = start(NORMED_METHOD, NORMED, step=7)
    after, _ = step(state, FIRST, None)
    found = after.variables["state"]["batch_stats"]
    if not batch_norm:
        assert_trees_equal(found, state.variables["state"]["batch_stats"])
        return
    body = state.variables["params"]["backbone"]

    def dense(x, name):
        return x @ np.float64(body[name]["kernel"]) + np.float64(body[name]["bias"])

    means = np.zeros(6)
    for half in (0, 1):
        x = dense(np.float64(FIRST.inputs[half::2]), "dense")
        means = 0.99 * means + 0.01 * x.mean(0)
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) + np.float64(body["norm"]["bias"])
        x = np.maximum(x, 0)
        name = f"_branch{half + 1}"
        of_branch = 0.01 * dense(x, "dense" + name).mean(0)
        np.testing.assert_allclose(found["norm" + name]["mean"], of_branch, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["norm"]["mean"], means, rtol=1e-4, atol=1e-6)


def test_the_samplings():
    """The first draws every example alike, the second class c in proportion to 1 / n_c."""
    method = make()
    labels = DATA.train.labels
    uniform, reversed_ = method.sampling(start(method), labels)
    np.testing.assert_array_equal(uniform, np.ones(len(labels)))
    mass = np.bincount(labels, np.asarray(reversed_))
    np.testing.assert_allclose(mass / mass[0], COUNTS[0] / np.array(COUNTS), rtol=1e-5)
    assert len(set(zip(np.asarray(labels), np.asarray(reversed_), strict=True))) == NUM_CLASSES


def test_a_class_without_examples_leaves_the_samplings_finite():
    method = bbn(MODEL, optax.sgd(RATE), (30, 0, 10), TOTAL, steps_per_epoch=EPOCH)
    weights = method.sampling(None, jnp.array([0] * 30 + [2] * 10))
    assert weights.shape == (2, 40)
    assert np.isfinite(weights).all()


def test_features_of_zero_have_a_finite_step():
    state = start(METHOD, step=7)
    state = state.replace(variables=jax.tree.map(jnp.zeros_like, state.variables))
    after, metrics = STEP(state, FIRST, None)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
    np.testing.assert_allclose(metrics["loss"][0] / 8, np.log(NUM_CLASSES), rtol=1e-5)


def test_eight_devices_equal_one():
    """Each device has one pair; the steps go over the end of an epoch."""
    eight = make(normed_model("batch"), axis_name="batch")
    state = start(NORMED_METHOD, NORMED, step=4)
    spread, spread_metrics = problem.on_eight_devices(eight.step, state, BATCHES, None)
    for i in range(5):
        state, metrics = NORMED_STEP(state, jax.tree.map(lambda x, i=i: x[i], BATCHES), None)
        at_step = jax.tree.map(lambda x, i=i: x[i], spread_metrics)
        assert_trees_close(at_step, metrics, rtol=1e-3)
    assert_trees_close(spread, state, rtol=1e-3, atol=1e-5)


def test_what_is_refused():
    with pytest.raises(ValueError, match="total_steps is 0"):
        bbn(MODEL, optax.sgd(RATE), COUNTS, 0, steps_per_epoch=1)
    with pytest.raises(ValueError, match="bbn: counts is 0 everywhere"):
        bbn(MODEL, optax.sgd(RATE), (0, 0, 0), 1, steps_per_epoch=1)
    with pytest.raises(ValueError, match="backbone with branches=2"):
        start(make(problem.MODEL), problem.MODEL)
    with pytest.raises(ValueError, match="this one has 15 examples"):
        METHOD.step(start(METHOD), jax.tree.map(lambda x: x[:15], FIRST), None)
