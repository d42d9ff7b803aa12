"""Meta-Weight-Net against automatic differentiation through an unrolled virtual step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.methods.meta.meta_loss import meta_batch_of
from otrw_jax.methods.meta.meta_weight_net import WeightNet, meta_weight_net
from tests.methods import problem
from tests.methods.problem import MODEL, assert_trees_close, assert_trees_equal, jit

RATE = 0.3
VIRTUAL = 0.2
NET_RATE = 20.0
DATA = problem.make_data()
META = DATA.meta
BATCHES = problem.make_batches(DATA, 2)
FIRST = jax.tree.map(lambda x: x[0], BATCHES)


def make(model=MODEL, virtual_learning_rate=VIRTUAL, **options):
    return meta_weight_net(
        model,
        optax.sgd(RATE),
        optax.sgd(NET_RATE),
        virtual_learning_rate=virtual_learning_rate,
        **{"hidden": 7, **options},
    )


def start(method, model=MODEL):
    return method.init(jax.random.key(0), problem.make_variables(model), DATA)


def hand_net(net, losses):
    first, second = net["Dense_0"], net["Dense_1"]
    x = jnp.maximum(losses[:, None] * first["kernel"] + first["bias"][None, :], 0)
    return 1 / (1 + jnp.exp(-(x @ second["kernel"])[:, 0] - second["bias"]))


def hand_step(losses_of, params, net, meta, rate):
    """V's parameters and the network's, differentiated through the virtual step as it stands."""
    losses = losses_of(params, FIRST)

    def weights_of(net):
        values = hand_net(net, losses)
        return values / values.sum()

    def gradient(weights):
        return jax.grad(lambda p: jnp.vdot(weights, losses_of(p, FIRST)))(params)

    def meta_loss(net):
        virtual = jax.tree.map(lambda p, g: p - rate * g, params, gradient(weights_of(net)))
        return losses_of(virtual, meta).mean()

    net = jax.tree.map(lambda p, g: p - NET_RATE * g, net, jax.grad(meta_loss)(net))
    return net, jax.tree.map(lambda p, g: p - RATE * g, params, gradient(weights_of(net)))


SCHEDULED = make(virtual_learning_rate=lambda step: jnp.where(step < 3, 0.1, 0.4), meta_batch=5)
SCHEDULED_STEP = jit(SCHEDULED.step)
NORMED_MODEL = problem.normed_model()
NORMED = make(NORMED_MODEL, meta_batch=7)
NORMED_STEP = jit(NORMED.step)


def test_steps_by_hand():
    """On two meta batches, on both sides of a schedule's drop.

    V's rate is a large one, so that the network's step shows that it follows the new V.
    """
    state = start(SCHEDULED)
    params = state.variables["params"]

    def losses_of(params, examples):
        return problem.hand_losses(params, examples.inputs, examples.labels)

    by_hand = jit(lambda *args: hand_step(losses_of, *args))
    for number, rate in ((0, 0.1), (3, 0.4)):
        after, metrics = SCHEDULED_STEP(state.replace(step=jnp.int32(number)), FIRST, META)
        drawn = meta_batch_of(META, 5, state.key, number)
        net, wanted = by_hand(params, state.net_params, drawn, rate)
        moved = jax.tree.map(lambda a, b: np.abs(np.subtract(a, b)).max(), net, state.net_params)
        assert max(jax.tree.leaves(moved)) > 0.1
        assert_trees_close(after.net_params, net, rtol=1e-3, atol=1e-5)
        assert_trees_close(after.variables["params"], wanted)
        assert after.step == number + 1
    losses = losses_of(params, FIRST)
    np.testing.assert_allclose(metrics["loss"], (losses.sum(), 16), rtol=1e-5)
    assert 0 <= metrics["error"][0] <= metrics["error"][1] == 16


def test_with_batch_statistics():
    """The virtual and the meta pass use them, and the running ones follow the batch alone."""
    model = NORMED_MODEL
    state = start(NORMED, model)
    after, _ = NORMED_STEP(state, FIRST, META)
    drawn = meta_batch_of(META, 7, state.key, 0)

    @jit
    def by_hand(params, net, model_state):
        losses = problem.normed_losses(model, model_state)
        moved = losses(params, FIRST)[1]
        return *hand_step(lambda *given: losses(*given)[0], params, net, drawn, VIRTUAL), moved

    params, model_state = state.variables["params"], state.variables["state"]
    net, params, moved = by_hand(params, state.net_params, model_state)
    assert_trees_close(after.net_params, net, rtol=1e-3, atol=1e-5)
    assert_trees_close(after.variables, {"params": params, "state": moved}, rtol=1e-3, atol=1e-5)


def test_the_head_alone_in_evaluation_mode():
    method = make(NORMED_MODEL, batch_norm=False, trainable="head/.*")
    state = start(method, NORMED_MODEL)
    after, _ = jit(method.step)(state, FIRST, META)
    before, found = state.variables, after.variables
    assert_trees_equal(found["state"], before["state"])
    assert_trees_equal(found["params"]["backbone"], before["params"]["backbone"])
    kernels = (v["params"]["head"]["Dense_0"]["kernel"] for v in (before, found))
    assert (next(kernels) != next(kernels)).any()


def test_all_weights_zero():
    """The sigmoid underflows for every example: nothing moves, and nothing is NaN."""
    state = start(SCHEDULED)
    state.net_params["Dense_1"]["bias"] = jnp.full(1, -1e4, jnp.float32)
    after, _ = SCHEDULED_STEP(state, FIRST, META)
    assert_trees_equal(after.variables, state.variables)
    assert_trees_equal(after.net_params, state.net_params)


def test_the_weight_net():
    losses = jnp.linspace(0, 9, 50)
    net = WeightNet(100)
    params = jit(net.init)(jax.random.key(1), losses)["params"]
    assert {x.shape for x in jax.tree.leaves(params)} == {(1, 100), (100,), (100, 1), (1,)}
    for layer, bound in (("Dense_0", 1.0), ("Dense_1", 0.1)):
        for x in params[layer].values():
            assert np.abs(x).max() <= bound
        assert np.abs(params[layer]["kernel"]).max() > 0.9 * bound
    values = jit(net.apply)({"params": params}, losses)
    np.testing.assert_allclose(values, jit(hand_net)(params, losses), rtol=1e-5)
    assert ((values > 0) & (values < 1)).all()


def test_no_meta_set():
    with pytest.raises(ValueError, match="meta_weight_net needs a meta set: take meta_per_class"):
        make().init(jax.random.key(0), problem.make_variables(), DATA.replace(meta=None))


def test_eight_devices_equal_one():
    eight = make(problem.normed_model("batch"), meta_batch=7, axis_name="batch")
    state = start(NORMED, NORMED_MODEL)
    spread, spread_metrics = problem.on_eight_devices(eight.step, state, BATCHES, META)
    for i in range(2):
        state, metrics = NORMED_STEP(state, jax.tree.map(lambda x, i=i: x[i], BATCHES), META)
        at_step = jax.tree.map(lambda x, i=i: x[i], spread_metrics)
        assert_trees_close(at_step, metrics, rtol=1e-3)
    assert_trees_close(spread, state, rtol=1e-3, atol=1e-5)
