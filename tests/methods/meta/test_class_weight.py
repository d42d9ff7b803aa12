"""Meta-class-weight before its start and after, against an unrolled virtual step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.losses import cross_entropy
from otrw_jax.methods.meta.class_weight import meta_class_weight
from otrw_jax.methods.meta.meta_loss import meta_batch_of
from tests.methods import problem
from tests.methods.problem import MODEL, assert_trees_close, assert_trees_equal, jit

RATE = 0.3
OF_CLASS = (0.5, 1.0, 4.0)
DATA = problem.make_data()
META = DATA.meta
BATCHES = problem.make_batches(DATA, 2)
FIRST = jax.tree.map(lambda x: x[0], BATCHES)

# So large that the corrections are as large as the weights.
RATES = 0.02, 3.0
LARGE = {"virtual_learning_rate": RATES[0], "weight_learning_rate": RATES[1]}


def make(model=MODEL, class_weights=OF_CLASS, *, start, **options):
    return meta_class_weight(model, optax.sgd(RATE), class_weights, start=start, **options)


NORMED_MODEL = problem.normed_model()
NORMED = make(NORMED_MODEL, start=1, meta_batch=7, **LARGE)
NORMED_STEP = jit(NORMED.step)


def begin(method, model=MODEL):
    return method.init(jax.random.key(0), problem.make_variables(model), DATA)


def hand_step(losses_of, params, virtual_rate, weight_rate, meta=META):
    """Corrections, by differentiation in ε through the virtual step; parameters after the step."""
    prior = jnp.array(OF_CLASS)[FIRST.labels]

    def gradient(weights):
        return jax.grad(lambda p: jnp.vdot(weights, losses_of(p, FIRST)))(params)

    def meta_loss(epsilon):
        virtual = jax.tree.map(lambda p, g: p - virtual_rate * g, params, gradient(prior + epsilon))
        return losses_of(virtual, meta).mean()

    correction = -weight_rate * jax.grad(meta_loss)(jnp.zeros(16))
    weighted = gradient(prior + correction)
    return correction, jax.tree.map(lambda p, g: p - RATE * g / 16, params, weighted)


def hand_losses(params, examples):
    return problem.hand_losses(params, examples.inputs, examples.labels)


meta_step = jit(functools.partial(hand_step, hand_losses))


def plain_step(params):
    gradient = problem.hand_gradient(params, FIRST.inputs, FIRST.labels, jnp.full(16, 1 / 16))
    return jax.tree.map(lambda p, g: p - RATE * g, params, gradient)


def test_steps_by_hand():
    """Before the start the plain mean and no pass over the meta set; from it on, with weights."""
    passes = []

    def loss_meta(logits, labels):
        jax.debug.callback(lambda: passes.append(1))
        return cross_entropy(logits, labels)

    method = make(start=2, loss_meta=loss_meta, **LARGE)
    state = begin(method)
    step = jit(method.step)
    for number in range(3):
        params = state.variables["params"]
        state, metrics = step(state, FIRST, META)
        jax.effects_barrier()
        if number < 2:
            wanted = plain_step(params)
            assert not passes
        else:
            correction, wanted = meta_step(params, *RATES)
            assert jnp.abs(correction).max() > 0.2
            assert passes
        assert_trees_close(state.variables["params"], wanted)
        losses = hand_losses(params, FIRST)
        np.testing.assert_allclose(metrics["loss"], (losses.sum(), 16), rtol=1e-5)
        assert 0 <= metrics["error"][0] <= metrics["error"][1] == 16
        assert state.step == number + 1


def test_seeds_on_both_sides_of_the_start():
    """Under vmap each takes its own branch; with the rates of the program."""
    method = make(start=2)
    state = begin(method)
    both = jax.tree.map(lambda x: jnp.stack([x, x]), state).replace(step=jnp.arange(1, 3))
    after, _ = jit(jax.vmap(method.step, (0, None, None)))(both, FIRST, META)
    params = state.variables["params"]
    for i, wanted in enumerate((plain_step(params), meta_step(params, 1e-3, 0.01)[1])):
        found = jax.tree.map(lambda x, i=i: x[i], after.variables["params"])
        assert_trees_close(found, wanted)


def test_with_batch_statistics():
    """The virtual and the meta pass use them, and the running ones follow the batch alone."""
    model = NORMED_MODEL
    state = begin(NORMED, model).replace(step=jnp.int32(1))
    after, _ = NORMED_STEP(state, FIRST, META)
    drawn = meta_batch_of(META, 7, state.key, 1)

    @jit
    def by_hand(params, model_state):
        losses = problem.normed_losses(model, model_state)
        moved = losses(params, FIRST)[1]
        return {
            "params": hand_step(lambda *given: losses(*given)[0], params, *RATES, drawn)[1],
            "state": moved,
        }

    wanted = by_hand(state.variables["params"], state.variables["state"])
    assert_trees_close(after.variables, wanted, rtol=1e-3, atol=1e-5)


def test_the_head_alone_in_evaluation_mode():
    method = make(NORMED_MODEL, start=0, batch_norm=False, trainable="head/.*")
    state = begin(method, NORMED_MODEL)
    after, _ = jit(method.step)(state, FIRST, META)
    before, found = state.variables, after.variables
    assert_trees_equal(found["state"], before["state"])
    assert_trees_equal(found["params"]["backbone"], before["params"]["backbone"])
    kernels = (v["params"]["head"]["Dense_0"]["kernel"] for v in (before, found))
    assert (next(kernels) != next(kernels)).any()


def test_all_weights_zero():
    method = make(
        class_weights=np.zeros(3), start=0, loss_meta=lambda logits, labels: 0 * logits[:, 0]
    )
    state = begin(method)
    after, _ = jit(method.step)(state, FIRST, META)
    assert_trees_equal(after.variables, state.variables)


def test_what_init_refuses():
    variables = problem.make_variables()
    with pytest.raises(ValueError, match="meta_class_weight needs a meta set: take meta_per_class"):
        make(start=0).init(jax.random.key(0), variables, DATA.replace(meta=None))
    with pytest.raises(ValueError, match=r"shape \(2,\); give one weight for each of the 3"):
        make(class_weights=(1.0, 2.0), start=0).init(jax.random.key(0), variables, DATA)


def test_eight_devices_equal_one():
    """The second step is the start."""
    model = problem.normed_model("batch")
    eight = make(model, start=1, meta_batch=7, axis_name="batch", **LARGE)
    state = begin(NORMED, NORMED_MODEL)
    spread, spread_metrics = problem.on_eight_devices(eight.step, state, BATCHES, META)
    for i in range(2):
        state, metrics = NORMED_STEP(state, jax.tree.map(lambda x, i=i: x[i], BATCHES), META)
        at_step = jax.tree.map(lambda x, i=i: x[i], spread_metrics)
        assert_trees_close(at_step, metrics, rtol=1e-3)
    assert_trees_close(spread, state, rtol=1e-3, atol=1e-5)
