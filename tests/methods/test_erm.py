"""ERM against a gradient step written by hand; its parts, its scan, its devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.methods.erm import deferred, erm, influence

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


def test_what_is_not_one_number_an_example_or_a_class():
    def step(**options):
        method = erm(MODEL, optax.sgd(RATE), **options)
        return method.step(start(method), FIRST, None)

    with pytest.raises(ValueError, match=r"loss has shape \(16, 1\); it must be \(16,\), one"):
        step(loss=lambda logits, labels: logits[:, :1])
    with pytest.raises(ValueError, match=r"loss has shape \(\)"):
        step(loss=lambda logits, labels: logits.mean())
    with pytest.raises(ValueError, match=r"class_weights has shape \(2,\); it must be \(3,\)"):
        step(class_weights=(0.5, 1.0))
    with pytest.raises(ValueError, match=r"mixup is -1\.0; it must be 0"):
        step(mixup=-1.0)


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


def test_class_weights_by_the_step():
    """Ones before the start, then the weights: deferred re-weighting."""
    weights = jnp.array((0.5, 1.0, 4.0))
    late = erm(MODEL, optax.sgd(RATE), class_weights=deferred(weights, 2))
    plain = erm(MODEL, optax.sgd(RATE))
    weighted = erm(MODEL, optax.sgd(RATE), class_weights=weights)
    step = jit(late.step)
    for number, same in enumerate([plain, plain, weighted, weighted]):
        state = start(late).replace(step=jnp.asarray(number))
        after, _ = step(state, FIRST, None)
        wanted, _ = jit(same.step)(state, FIRST, None)
        assert_trees_close(after.variables, wanted.variables)


def test_the_factor_of_influence():
    """The gradient is that of the product, the factor included."""
    method = erm(MODEL, optax.sgd(RATE), factor=influence(10.0, start=1))
    before = start(method)
    first, _ = jit(method.step)(before, FIRST, None)
    plain, _ = jit(erm(MODEL, optax.sgd(RATE)).step)(before, FIRST, None)
    assert_trees_close(first.variables, plain.variables)

    def objective(params):
        z = problem.hand_features(params, FIRST.inputs)
        head = params["head"]["Dense_0"]
        logits = z @ head["kernel"] + head["bias"][None, :]
        p = jnp.exp(logits) / jnp.exp(logits).sum(1, keepdims=True)
        mine = jnp.arange(3)[None, :] == FIRST.labels[:, None]
        factor = 10 / (jnp.abs(p - mine).sum(1) * jnp.abs(z).sum(1) + 1e-3)
        return jnp.mean(factor * -jnp.log(p[jnp.arange(16), FIRST.labels]))

    params = before.variables["params"]
    wanted = jax.tree.map(lambda p, g: p - RATE * g, params, jax.grad(objective)(params))
    after, _ = jit(method.step)(before.replace(step=jnp.asarray(1)), FIRST, None)
    assert_trees_close(after.variables["params"], wanted, rtol=1e-3, atol=1e-5)


def test_the_cross_entropy_of_the_meta_set():
    method = erm(MODEL, optax.sgd(RATE), meta_cross_entropy=10.0)
    state = start(method)
    after, _ = jit(method.step)(state, FIRST, DATA.meta)
    params = state.variables["params"]
    gradient = problem.hand_gradient(params, FIRST.inputs, FIRST.labels, jnp.full((16,), 1 / 16))
    meta = DATA.meta
    of_meta = problem.hand_gradient(params, meta.inputs, meta.labels, jnp.full((12,), 10 / 12))
    wanted = jax.tree.map(lambda p, g, m: p - RATE * (g + m), params, gradient, of_meta)
    assert_trees_close(after.variables["params"], wanted)
    with pytest.raises(ValueError, match="needs a meta set"):
        method.init(jax.random.key(0), state.variables, DATA.replace(meta=None))


def test_mixup_mixes_inputs_and_losses_by_one_share():
    a = 0.4
    method = erm(MODEL, optax.sgd(RATE), mixup=a)
    state = start(method)
    after, metrics = jit(method.step)(state, FIRST, None)
    share_key, order_key = jax.random.split(jax.random.fold_in(state.key, 0))
    share = jax.random.beta(share_key, a, a)
    order = jax.random.permutation(order_key, 16)
    inputs = share * FIRST.inputs + (1 - share) * FIRST.inputs[order]
    params = state.variables["params"]
    gradients = [
        problem.hand_gradient(params, inputs, labels, jnp.full((16,), part / 16))
        for part, labels in [(share, FIRST.labels), (1 - share, FIRST.labels[order])]
    ]
    wanted = jax.tree.map(lambda p, g, h: p - RATE * (g + h), params, *gradients)
    assert_trees_close(after.variables["params"], wanted)
    again, _ = jit(method.step)(after, FIRST, None)
    assert not jnp.allclose(
        jax.random.beta(jax.random.split(jax.random.fold_in(state.key, 1))[0], a, a), share
    )
    assert np.isfinite(metrics["loss"][0]) and again.step == 2


def test_sharpness_aware_steps_take_the_gradient_uphill():
    rho = 0.05
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(rho))
    sam = optax.contrib.sam(optax.sgd(RATE), ascent, opaque_mode=True)
    method = erm(MODEL, sam)
    state = start(method)
    after, _ = jit(method.step)(state, FIRST, None)
    params, even = state.variables["params"], jnp.full((16,), 1 / 16)
    gradient = problem.hand_gradient(params, FIRST.inputs, FIRST.labels, even)
    length = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    uphill = jax.tree.map(lambda p, g: p + rho * g / length, params, gradient)
    there = problem.hand_gradient(uphill, FIRST.inputs, FIRST.labels, even)
    wanted = jax.tree.map(lambda p, g: p - RATE * g, params, there)
    assert_trees_close(after.variables["params"], wanted)
