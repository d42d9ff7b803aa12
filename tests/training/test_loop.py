import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax import erm
from otrw_jax.methods.base import Examples, TrainingData
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import flax_model
from otrw_jax.training.calls import AT_ONCE, compile_calls, drawn_by_blocks, first_above
from otrw_jax.training.devices import pick_devices
from otrw_jax.training.loop import TrainingDivergedError, make_loop, run_stage
from otrw_jax.training.stages import DeviceData, Stage
from tests.training.log_method import EPOCHS, KEY, SIZE, STEPS, N, log_method, make_data, prepare

STAGE = Stage("stage1", log_method(), EPOCHS, SIZE)


@functools.cache
def compiled(steps_per_call=0):
    return make_loop(STAGE, prepare, steps_per_call=steps_per_call)


def run_log(loop, epochs=EPOCHS, data=None):
    """The state and each epoch's metrics; the keys are those of `run_stage`, and no refresh."""
    data = make_data() if data is None else data
    state = loop.start(KEY, jnp.zeros(()), data)
    records = []
    for number in range(epochs):
        state, metrics = loop.epoch(state, data, jax.random.fold_in(KEY, number))
        records.append(metrics)
    return jax.device_get(state), records


@functools.cache
def logged(steps_per_call=0):
    return run_log(compiled(steps_per_call))


def epochs_of(state, epochs=EPOCHS):
    return np.asarray(state.ids).reshape(epochs, -1)


@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_the_result_does_not_depend_on_the_steps_per_call(steps_per_call):
    whole, records = logged()
    parts, part_records = logged(steps_per_call)
    np.testing.assert_array_equal(whole.ids, parts.ids)
    np.testing.assert_array_equal(whole.labels, parts.labels)
    np.testing.assert_allclose(whole.inputs, parts.inputs, rtol=1e-6)
    np.testing.assert_allclose(whole.variables, parts.variables, rtol=1e-6)
    for one, other in zip(records, part_records, strict=True):
        assert one == pytest.approx(other, rel=1e-6)


def test_the_share_of_an_epoch_that_is_done_is_told():
    for steps_per_call, wanted in ((1, [1 / 5, 2 / 5, 3 / 5, 4 / 5]), (3, [1 / 2]), (0, [])):
        loop, data, shares = compiled(steps_per_call), make_data(), []
        state = loop.start(KEY, jnp.zeros(()), data)
        loop.epoch(state, data, KEY, shares.append)
        assert shares == wanted
    # A runner hands it on, to each epoch.
    state = loop.start(KEY, jnp.zeros(()), data)
    list(run_stage(compiled(3), state, data, KEY, EPOCHS - 2, shares.append))
    assert shares == [1 / 2, 1 / 2]


def test_a_network_is_trained_alike_by_one_call_and_by_many():
    keys = jax.random.split(KEY, 2)
    inputs = jax.random.normal(keys[0], (50, 5))
    train = Examples(inputs, jnp.argmax(inputs[:, :3], axis=1))
    data = DeviceData(train, TrainingData(train, None, 3))
    model = flax_model(MLP(hidden=(8,)), LinearHead(3))
    stage = Stage("stage1", erm(model, optax.sgd(0.1, momentum=0.9)), 8, 8)
    variables = model.init(keys[1], inputs[:2])
    ends = []
    for steps in (0, 3):
        loop = make_loop(stage, lambda keys, x: x, steps_per_call=steps)
        state = loop.start(KEY, variables, data)
        epochs = run_stage(loop, state, data, KEY)
        losses = [(metrics["loss"], state) for _, state, metrics in epochs]
        assert losses[-1][0] < 0.7 * losses[0][0]
        ends.append(losses[-1][1])
    leaves = (jax.tree.leaves((end.variables, end.opt_state, end.step)) for end in ends)
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_an_epoch_takes_every_example_at_most_once_and_drops_the_rest():
    state, _ = logged()
    assert state.step == EPOCHS * STEPS
    orders = epochs_of(state)
    assert orders.shape == (EPOCHS, STEPS * SIZE)
    for order in orders:
        assert len(set(order.tolist())) == STEPS * SIZE
        assert set(order.tolist()) <= set(range(N))
    assert len({tuple(order) for order in orders}) == EPOCHS
    # What is dropped is not always the same.
    assert len({frozenset(range(N)) - set(order.tolist()) for order in orders}) > 1


def test_inputs_and_labels_are_those_of_the_ids_and_the_augmentation_is_new_each_step():
    state, _ = logged()
    np.testing.assert_array_equal(state.labels, state.ids % 3)
    noise = np.asarray(state.inputs - 10.0 * state.ids)
    assert noise.min() >= 0 and noise.max() <= 1
    # Rounded to what float32 keeps of it beside inputs of a few hundred.
    assert len(np.unique(noise.round(4))) > 0.95 * noise.size
    assert state.meta == 4.0


def test_metrics_are_means_over_the_epoch():
    state, records = logged(3)
    inputs = np.asarray(state.inputs, np.float64).reshape(EPOCHS, -1)
    heads = np.asarray(state.labels == 0).reshape(EPOCHS, -1)
    for epoch, metrics in enumerate(records):
        assert metrics == pytest.approx(
            {"loss": inputs[epoch].mean(), "error": heads[epoch].mean()}, rel=1e-6
        )
        assert all(type(value) is float for value in metrics.values())


def test_a_batch_may_be_the_whole_training_set():
    stage = Stage("stage1", log_method(size=N, capacity=EPOCHS), EPOCHS, N)
    state, _ = run_log(make_loop(stage, prepare))
    np.testing.assert_array_equal(np.sort(state.ids, axis=1), [np.arange(N)] * EPOCHS)


def test_a_batch_larger_than_the_training_set_is_an_error():
    stage = Stage("stage2", log_method(size=N + 1), 1, N + 1)
    with pytest.raises(ValueError, match=f"stage2: the batch size is {N + 1} .* has {N} examples"):
        run_log(make_loop(stage, prepare), epochs=1)


def test_sampling_follows_the_weights():
    n, size, epochs = 600, 20, 40
    group = np.arange(n) % 4
    weights = jnp.asarray(np.array([0.0, 2.0, 6.0, 12.0])[group], jnp.float32)
    stage = Stage("stage2", log_method(size, epochs * n // size, weights), epochs, size)
    state, _ = run_log(make_loop(stage, prepare), epochs, make_data(n))
    ids = np.asarray(state.ids)
    assert ids.shape == (epochs * n // size, size) and ids.min() >= 0
    np.testing.assert_array_equal(state.labels, ids % 3)
    counts = np.bincount(group[ids.ravel()], minlength=4)
    assert counts[0] == 0
    expected = ids.size * np.array([0.1, 0.3, 0.6])
    # 13.8 is the 0.999 quantile of the chi-squared distribution with two degrees of freedom.
    assert np.sum((counts[1:] - expected) ** 2 / expected) < 13.8
    # Inside a group every example is as likely: 149 degrees of freedom, quantile 208.
    visits = np.bincount(ids.ravel(), minlength=n)[group == 3]
    assert np.sum((visits - visits.mean()) ** 2) / visits.mean() < 208


def made_weights(count):
    """Of classes of very unlike sizes, and some examples without weight."""
    rng = np.random.default_rng(0)
    of_class = rng.permutation(np.geomspace(1, 1e-4, 200))
    weights = of_class[rng.integers(200, size=count)] * (rng.random(count) > 0.1)
    return jnp.asarray(weights, jnp.float32)


def test_among_very_many_examples_none_is_out_of_reach():
    """A target in the middle of an example's share finds it; one at its start, in a block too."""
    count = AT_ONCE + 100
    weights = np.float64(made_weights(count))
    side = math.isqrt(count - 1) + 1
    table = np.pad(weights, (0, side * side - count)).reshape(side, side)
    within = jnp.cumsum(jnp.asarray(table, jnp.float32), axis=1)
    middle = np.cumsum(table, axis=1) - table / 2
    row, column = np.nonzero(table)
    found = first_above(within, jnp.asarray(row), jnp.asarray(middle[row, column], jnp.float32))
    np.testing.assert_array_equal(found, column)
    last = np.float32(within[:, -1])
    ends = first_above(within, jnp.arange(side), jnp.asarray(np.nextafter(last, np.float32(0))))
    assert (table[np.arange(side), ends] > 0)[last > 0].all()


def test_very_many_examples_are_drawn_by_their_weights():
    count, draws = AT_ONCE + 100, 2_000_000
    weights = made_weights(count)
    drawn = jax.jit(lambda key: drawn_by_blocks(key, weights, (draws,)))
    ids = np.asarray(drawn(jax.random.key(3)))
    shares = np.float64(weights) / np.float64(weights).sum()
    counts = np.bincount(ids, minlength=count)
    assert ids.dtype == np.int32 and counts[np.asarray(weights) == 0].sum() == 0
    # By groups of like shares; chi-squared within 3.3 deviations of its mean.
    groups = np.array_split(np.argsort(shares), 200)
    groups = [ids for ids in groups if shares[ids].sum() * draws > 20]
    expected = np.array([shares[ids].sum() for ids in groups]) * draws
    found = np.array([counts[ids].sum() for ids in groups])
    statistic = np.sum((found - expected) ** 2 / expected)
    assert statistic < len(groups) + 3.3 * np.sqrt(2 * len(groups))


@pytest.mark.parametrize("sampling", [None, jnp.ones(24)])
def test_ids_are_of_one_type_where_float64_is_enabled(sampling):
    """They are kept with an epoch that is under way, which is restored by their type."""
    stage = Stage("stage2", log_method(8, 8, sampling), 1, 8)
    with jax.enable_x64(True):
        calls = compile_calls(stage, prepare, pick_devices())
        data = make_data(24)
        state = calls.start(KEY, jnp.zeros(()), data)
        assert calls.draw(state, data, jax.random.key(0)).dtype == jnp.int32


@pytest.mark.parametrize(("steps_per_call", "shapes"), [(0, 1), (3, 2)])
def test_nothing_is_traced_again_after_the_first_epoch(steps_per_call, shapes):
    traces = []
    method = log_method(weights=jnp.ones(N), traces=traces)
    stage = Stage("stage2", method, EPOCHS, SIZE)
    data = make_data()
    loop = make_loop(stage, prepare, steps_per_call=steps_per_call)
    state = loop.start(KEY, jnp.zeros(()), data)
    seen = []
    for _, _, _ in run_stage(loop, state, data, KEY):
        seen.append((traces.count("sampling"), traces.count("step")))
    assert seen == [seen[0]] * EPOCHS
    assert seen[0][0] == 1
    # A scan may trace its body more than once, but for each shape alike.
    assert seen[0][1] <= 2 * shapes


def test_the_state_is_donated_and_what_it_was_made_of_is_not():
    data, variables = make_data(), jnp.zeros(())
    state = compiled().start(KEY, variables, data)
    after, _ = compiled().epoch(state, data, KEY)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    kept = (after, variables, data.raw, data.view.meta)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(kept))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_ends_the_training(value):
    data = make_data()
    raw = data.raw._replace(inputs=data.raw.inputs.at[:].set(value))
    message = f"stage1: the training loss is {value}; take a smaller learning rate"
    with pytest.raises(TrainingDivergedError, match=message):
        run_log(compiled(), data=data._replace(raw=raw))


def test_a_stage_refreshes_before_every_epoch_but_the_first_and_has_a_new_order_in_each():
    data = make_data()
    state = compiled().start(KEY, jnp.zeros(()), data)
    seen, last = [], None
    for number, last, _ in run_stage(compiled(), state, data, KEY):
        seen.append((number, int(last.refreshed), int(last.step)))
    assert seen == [(e, e, (e + 1) * STEPS) for e in range(EPOCHS)]
    assert len({tuple(order) for order in epochs_of(last)}) == EPOCHS


@pytest.mark.parametrize("done", [1, 3])
def test_a_stage_goes_on_as_if_it_had_never_stopped(done):
    data = make_data()
    first = compiled().start(KEY, jnp.zeros(()), data)
    whole = [jax.device_get(state) for _, state, _ in run_stage(compiled(), first, data, KEY)]
    saved = jax.tree.map(jnp.asarray, whole[done - 1])
    rest = list(run_stage(compiled(), saved, data, KEY, first_epoch=done))
    assert [number for number, _, _ in rest] == list(range(done, EPOCHS))
    jax.tree.map(np.testing.assert_array_equal, rest[-1][1], whole[-1])


def test_the_order_depends_on_the_key_alone():
    data = make_data()
    orders = []
    for seed in (0, 0, 1):
        state = compiled().start(KEY, jnp.zeros(()), data)
        state, _ = compiled().epoch(state, data, jax.random.key(seed))
        orders.append(np.asarray(state.ids))
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).any()


def test_an_epoch_tells_how_far_it_is_and_is_the_same():
    data, told = make_data(), []
    loop = compiled(steps_per_call=2)
    key = jax.random.fold_in(KEY, 0)
    plain, metrics = loop.epoch(loop.start(KEY, jnp.zeros(()), data), data, key)
    state, same = loop.epoch(loop.start(KEY, jnp.zeros(()), data), data, key, told.append)
    assert told == pytest.approx([1 / 3, 2 / 3])  # Calls of 2, 2 and 1 steps.
    assert metrics == same
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
