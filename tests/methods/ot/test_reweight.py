"""OT re-weighting: each of its choices, its gradients, its state, its devices."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.methods.base import Batch
from otrw_jax.methods.ot.problem import OTReweighting
from tests.methods import problem
from tests.methods.ot.reweighting import (
    DATA,
    FAST,
    FIRST,
    FROZEN,
    FROZEN_RANDOM,
    GLOBAL,
    PAPER,
    PRECISE,
    RATE,
    VALUES,
    WEIGHT_RATE,
    compiled,
    make_method,
    make_state,
)
from tests.methods.problem import NUM_CLASSES, assert_trees_close, assert_trees_equal
from tests.ot import reference


def hand_weight_step(values, cost, masses, simplex):
    """The OT loss and the batch's new values, in float64."""
    values = np.float64(values)
    positive = values if simplex == "normalize" else np.exp(values)
    p = positive / positive.sum()
    slopes = reference.gradient(p, masses, cost, 0.1)
    slopes = slopes - p @ slopes
    if simplex == "normalize":
        moved = np.maximum(p - WEIGHT_RATE * slopes, 0)
        after = moved * values.sum() / moved.sum()
    else:
        after = values - WEIGHT_RATE * p * slopes
    return reference.loss(p, masses, cost, 0.1), after


def hand_candidates(config, state):
    """The atoms and labels that the measure may have, every draw of a random one."""
    params, meta = state.variables["params"], DATA.meta
    meta_z = np.float64(problem.hand_features(params, meta.inputs))
    labels = np.asarray(meta.labels)
    means, classes = problem.class_means(meta_z, labels), np.arange(NUM_CLASSES)
    match config.measure:
        case "whole":
            return [(meta_z, labels)]
        case "prototype":
            return [(means, classes)]
        case "prototype_input":
            inputs = problem.class_means(meta.inputs, labels)
            return [(problem.hand_features(params, jnp.float32(inputs)), classes)]
        case "random_sample":
            rows = [np.flatnonzero(labels == c) for c in range(NUM_CLASSES)]
            return [(meta_z[list(draw)], classes) for draw in itertools.product(*rows)]
        case "random_prototypes":
            pairs = itertools.combinations(range(NUM_CLASSES), config.measure_size)
            return [(means[list(pair)], np.array(pair)) for pair in pairs]
        case "dynamic":
            return [(state.meta_features, state.meta_labels)]


@pytest.mark.parametrize(
    "changes",
    [
        {"measure": "whole", "simplex": "softmax"},
        {"measure": "random_sample", "cost": "feature", "simplex": "none"},
        {"measure": "random_prototypes", "measure_size": 2, "simplex": "softmax"},
        {"measure": "prototype_input", "feature_weight": 0.5, "label_weight": 0.3},
        {"measure": "prototype", "cost": "label"},
        {"measure": "dynamic", "measure_size": 2, "meta_features": "refresh"},
    ],
    ids=lambda changes: changes["measure"],
)
def test_the_weight_step_by_hand(changes):
    config = dataclasses.replace(FROZEN, **changes)
    state = make_state(config, values=VALUES)
    meta = None if config.measure == "dynamic" else DATA.meta
    after, metrics = compiled(config)(state, FIRST, meta)
    params, values = state.variables["params"], VALUES[FIRST.ids]
    z = problem.hand_features(params, FIRST.inputs)
    factors = {
        "combined": (config.feature_weight, config.label_weight),
        "feature": (1, 0),
        "label": (0, 1),
    }[config.cost]
    steps = []
    for atoms, labels in hand_candidates(config, state):
        cost = problem.hand_cost(z, FIRST.labels, atoms, labels, *factors)
        masses = np.full(len(labels), 1 / len(labels))
        steps.append(hand_weight_step(values, cost, masses, config.simplex))
    found = metrics["ot_loss"][0] / metrics["ot_loss"][1]
    loss, new_values = min(steps, key=lambda step: abs(step[0] - found))
    np.testing.assert_allclose(found, loss, rtol=1e-4)
    batch_values = after.weights.values[FIRST.ids]
    np.testing.assert_allclose(batch_values - values, new_values - values, rtol=2e-3, atol=1e-6)
    assert np.abs(new_values - values).max() > 1e-4

    # (c): the sum of losses weighted by the new values, on the simplex unless raw.
    used = np.asarray(batch_values)
    if config.simplex == "normalize":
        used = used / used.sum()
    elif config.simplex == "softmax":
        used = np.exp(used) / np.exp(used).sum()
    gradient = problem.hand_gradient(params, FIRST.inputs, FIRST.labels, jnp.asarray(used))
    head = jax.tree.map(lambda p, g: p - RATE * g, params["head"], gradient["head"])
    assert_trees_close(after.variables["params"]["head"], head, atol=1e-5)
    assert_trees_equal(after.variables["params"]["backbone"], params["backbone"])


def test_a_random_measure_changes_from_step_to_step():
    state = make_state(FROZEN_RANDOM)
    step = compiled(FROZEN_RANDOM)
    losses = {
        float(step(state.replace(step=jnp.int32(i)), FIRST, DATA.meta)[1]["ot_loss"][0])
        for i in range(8)
    }
    assert len(losses) > 2


def test_the_dynamic_measure_is_a_balanced_draw_from_the_training_set():
    config = dataclasses.replace(FROZEN, measure="dynamic", measure_size=2, meta_features="refresh")
    data = DATA.replace(meta=None)
    method = make_method(config)
    state = method.init(jax.random.key(0), problem.make_variables(), data)
    np.testing.assert_array_equal(state.meta_labels, [0, 0, 1, 1, 2, 2])
    z = np.asarray(problem.hand_features(state.variables["params"], DATA.train.inputs))
    for atom, label in zip(np.asarray(state.meta_features), state.meta_labels, strict=True):
        distance = np.abs(z - atom[None, :]).max(1)
        assert distance.min() < 1e-5 and DATA.train.labels[distance.argmin()] == label
    later = method.refresh(state.replace(step=jnp.int32(40)), data)
    assert not np.allclose(later.meta_features, state.meta_features)
    after, _ = compiled(config)(state, FIRST, None)
    assert after.step == 1


def test_closed_form():
    config = dataclasses.replace(FROZEN, weighting="closed_form")
    state = make_state(config)
    after, metrics = compiled(config)(state, FIRST, DATA.meta)
    params = state.variables["params"]
    z = problem.hand_features(params, FIRST.inputs)
    meta_z = problem.hand_features(params, DATA.meta.inputs)
    atoms = problem.class_means(meta_z, DATA.meta.labels)
    cost = problem.hand_cost(z, FIRST.labels, atoms, np.arange(NUM_CLASSES))
    kernel = np.exp(-cost / 0.1)
    wanted = (kernel / kernel.sum(0)).mean(1)
    np.testing.assert_allclose(after.weights.values[FIRST.ids], wanted, rtol=1e-4)
    loss = reference.loss(wanted, np.full(3, 1 / 3), cost, 0.1)
    np.testing.assert_allclose(metrics["ot_loss"][0], loss, rtol=1e-4)
    gradient = problem.hand_gradient(params, FIRST.inputs, FIRST.labels, jnp.float32(wanted))
    head = jax.tree.map(lambda p, g: p - RATE * g, params["head"], gradient["head"])
    assert_trees_close(after.variables["params"]["head"], head)


def test_second_order_gradient():
    """Finite differences, in float64, of the OT loss as a function of the weights alone."""
    config = OTReweighting(ot=PRECISE, simplex="none", second_order=True, virtual_learning_rate=0.5)
    batch = problem.batch_of(DATA, [0, 3, 5, 8, 13, 21, 34, 39])
    state = make_state(config, values=VALUES)
    after, _ = compiled(config)(state, batch, DATA.meta)
    found = (VALUES[batch.ids] - after.weights.values[batch.ids]) / WEIGHT_RATE

    values = np.float64(VALUES[batch.ids])
    masses = np.full(NUM_CLASSES, 1 / NUM_CLASSES)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), state.variables["params"])
        x, meta_x = (jnp.asarray(x, jnp.float64) for x in (batch.inputs, DATA.meta.inputs))

        def cost_of(values):
            gradient = problem.hand_gradient(params, x, batch.labels, jnp.asarray(values))
            virtual = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
            meta_z = problem.hand_features(virtual, meta_x)
            atoms = problem.class_means(meta_z, DATA.meta.labels)
            z = problem.hand_features(virtual, x)
            return problem.hand_cost(z, batch.labels, atoms, np.arange(NUM_CLASSES))

        def loss(values, cost=None):
            p = np.exp(values) / np.exp(values).sum()
            return reference.loss(p, masses, cost_of(values) if cost is None else cost, 0.1)

        ends = values + 1e-5 * np.eye(8), values - 1e-5 * np.eye(8)
        wanted = np.array([loss(a) - loss(b) for a, b in zip(*ends, strict=True)]) / 2e-5
        fixed = cost_of(values)
    first_order = np.array([loss(a, fixed) - loss(b, fixed) for a, b in zip(*ends, strict=True)])
    first_order = first_order / 2e-5
    size = np.linalg.norm(wanted)
    assert np.linalg.norm(found - wanted) < 1e-3 * size
    assert np.linalg.norm(first_order - wanted) > 0.03 * size


def test_from_scratch_forgets_the_weights_and_their_momentum():
    config = dataclasses.replace(FROZEN, ot=FAST, from_scratch=True)
    state = make_state(config)
    once, _ = compiled(config)(state, FIRST, DATA.meta)
    twice, _ = compiled(config)(once, FIRST, DATA.meta)
    assert_trees_equal(twice.weights, once.weights)
    assert np.abs(once.weights.values - 1).max() > 1e-2


def test_global_weights_of_the_label_cost_need_no_training_inputs():
    config = dataclasses.replace(GLOBAL, cost="label")
    data = DATA.replace(train=DATA.train._replace(inputs=None))
    state = make_state(config, data=data)
    by_class = np.bincount(DATA.train.labels, state.weights.values)
    np.testing.assert_allclose(by_class, 40 / 3, rtol=1e-2)


def test_meta_cross_entropy_adds_its_gradient():
    params = make_state(GLOBAL).variables["params"]
    kernels = []
    for factor in (0.0, 4.0):
        config = dataclasses.replace(GLOBAL, meta_cross_entropy=factor)
        after, _ = compiled(config)(make_state(config), FIRST, DATA.meta)
        kernels.append(after.variables["params"]["head"])
    meta = DATA.meta
    gradient = problem.hand_gradient(params, meta.inputs, meta.labels, jnp.full((12,), 4 / 12))
    added = jax.tree.map(lambda a, b: (a - b) / RATE, *kernels)
    assert_trees_close(added, gradient["head"], rtol=1e-3, atol=1e-5)


def test_no_meta_set():
    with pytest.raises(ValueError, match=r"needs a meta set: take meta_per_class of 1 or more"):
        make_state(PAPER, data=DATA.replace(meta=None))
    dynamic = OTReweighting(measure="dynamic", meta_features="refresh", meta_cross_entropy=1.0)
    with pytest.raises(ValueError, match="needs a meta set"):
        make_state(dynamic, data=DATA.replace(meta=None))


def test_a_class_without_meta_example_is_named():
    keep = np.flatnonzero(DATA.meta.labels != 1)
    meta = jax.tree.map(lambda x: x[keep], DATA.meta)
    with pytest.raises(ValueError, match=r"1 of 3 classes have no meta example: 1\."):
        make_state(PAPER, data=DATA.replace(meta=meta))


def test_nothing_to_train():
    with pytest.raises(ValueError, match=r"trainable='tail' matches no parameter"):
        make_state(OTReweighting(trainable="tail"))


def test_second_order_is_for_one_device():
    with pytest.raises(ValueError, match="second_order is for one device"):
        make_method(OTReweighting(second_order=True), axis_name="batch")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cost": "cosine"}, r"OTReweighting\.cost is 'cosine'; choose one of \['combined',"),
        ({"measure": "mean"}, r"OTReweighting\.measure is 'mean'; choose one of \['prototype',"),
        ({"weighting": "none"}, r"weighting is 'none'; choose one of \['learned', 'closed_form',"),
        ({"initial": "zero"}, r"initial is 'zero'; choose one of \['uniform',"),
        ({"simplex": "l2"}, r"simplex is 'l2'; choose one of \['softmax', 'normalize', 'none'\]"),
        ({"features": "train"}, r"features is 'train'; choose one of \['virtual', 'loss_pass',"),
        ({"meta_features": "once"}, r"meta_features is 'once'; choose one of \['step', 'refresh'"),
        ({"reduction": "max"}, r"reduction is 'max'; choose one of \['sum', 'mean'\]"),
        ({"measure": "dynamic"}, "set meta_features='refresh'"),
        ({"meta_batch_norm": True}, "set meta_features='refresh'"),
        (
            {"second_order": True, "features": "eval_pass"},
            "second_order .*; set features='virtual'",
        ),
        ({"second_order": True, "weighting": "global"}, "second_order .*; set weighting='learned'"),
        ({"sampling": True}, "set weighting='global'"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        OTReweighting(**options)


def test_ids_decide_which_weights_are_used():
    """A batch in another order gives the same step."""
    state = make_state(FROZEN_RANDOM, values=VALUES)
    order = np.random.default_rng(7).permutation(16)
    shuffled = Batch(*(x[order] for x in FIRST))
    one, _ = compiled(FROZEN_RANDOM)(state, FIRST, DATA.meta)
    other, _ = compiled(FROZEN_RANDOM)(state, shuffled, DATA.meta)
    assert_trees_close(one, other, rtol=1e-4, atol=1e-5)
