"""OT with a weight net: its step against float64, its choices, its devices."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax

from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.methods.ot.weight_net import ot_weight_net
from otrw_jax.ot.entropic import EntropicOT
from otrw_jax.ot.nets import AttentionWeightNet, MLPWeightNet
from tests.methods import problem
from tests.methods.problem import MODEL, NUM_CLASSES, assert_trees_close, assert_trees_equal, jit
from tests.ot import reference

RATE, NET_RATE = 0.3, 0.5
PRECISE = EntropicOT(threshold=1e-6, max_iterations=2000)
# Where the gradient of the OT loss is not what is tested, the one that compiles fastest.
FAST = EntropicOT(gradient="envelope", threshold=1e-6, max_iterations=2000)
DATA = problem.make_data()
BATCHES = problem.make_batches(DATA, 3)
LABELS = np.asarray(DATA.train.labels)
EVERY_CLASS = np.concatenate([np.flatnonzero(c == LABELS)[:n] for c, n in enumerate((9, 4, 3))])
BATCH = problem.batch_of(DATA, EVERY_CLASS)
FROZEN = OTReweighting(ot=PRECISE, trainable="head/.*", batch_norm=False)
PAPER = OTReweighting(ot=PRECISE, virtual_learning_rate=0.5)
DYNAMIC = dataclasses.replace(
    FROZEN, ot=FAST, measure="dynamic", measure_size=2, meta_features="refresh"
)
LABEL_COST = dataclasses.replace(FROZEN, ot=FAST, cost="label")
VIRTUAL = dataclasses.replace(PAPER, ot=FAST)
MLP, ATTENTION = MLPWeightNet(3), AttentionWeightNet(3)


def make_method(config, net=MLP, net_input="features", axis_name=None):
    return ot_weight_net(
        MODEL,
        optax.sgd(RATE),
        net,
        optax.sgd(NET_RATE),
        NUM_CLASSES,
        config,
        net_input=net_input,
        axis_name=axis_name,
    )


@functools.cache
def compiled(config, net=MLP, net_input="features"):
    return jit(make_method(config, net, net_input).step)


def start(method, data=DATA):
    """With a random net, biases too."""
    state = method.init(jax.random.key(0), problem.make_variables(), data)
    rng = np.random.default_rng(3)
    net = jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=p.shape) / np.sqrt(p.shape[0]), jnp.float32),
        state.net_params,
    )
    return state.replace(net_params=net)


def hand_net(net, params, x):
    """In NumPy."""
    layers = [params[f"Dense_{i}"] for i in range(2)]
    first = x @ layers[0]["kernel"] + layers[0]["bias"][None, :]
    if isinstance(net, MLPWeightNet):
        return softmax(np.tanh(first) @ layers[1]["kernel"][:, 0])
    scores = first @ (x @ layers[1]["kernel"] + layers[1]["bias"][None, :]).T / np.sqrt(3)
    return softmax(scores, axis=1).mean(0)


def hand_input(net_input, params):
    one_hot = np.eye(NUM_CLASSES)[np.asarray(BATCH.labels)]
    z = np.float64(problem.hand_features(params, BATCH.inputs))
    losses = np.float64(problem.hand_losses(params, BATCH.inputs, BATCH.labels))[:, None]
    both = np.concatenate([z, one_hot], axis=1)
    return {"features": z, "label": one_hot, "loss": losses, "features_and_label": both}[net_input]


def differences(function, params, step=1e-5):
    """The gradient of a function of a tree by central differences, entry by entry."""
    leaves, tree = jax.tree.flatten(jax.tree.map(np.float64, params))
    gradients = []
    for number, leaf in enumerate(leaves):
        gradient = np.zeros(leaf.shape)
        for at in np.ndindex(leaf.shape):
            ends = []
            for sign in (1, -1):
                moved = [x.copy() for x in leaves]
                moved[number][at] += sign * step
                ends.append(function(tree.unflatten(moved)))
            gradient[at] = (ends[0] - ends[1]) / (2 * step)
        gradients.append(gradient)
    return tree.unflatten(gradients)


def hand_candidates(config, state):
    """The atoms and labels that the measure may have, every draw of a random one."""
    params, meta = state.variables["params"], DATA.meta
    z, labels = np.float64(problem.hand_features(params, meta.inputs)), np.asarray(meta.labels)
    match config.measure:
        case "whole":
            return [(z, labels)]
        case "prototype":
            return [(problem.class_means(z, labels), np.arange(NUM_CLASSES))]
        case "random_sample":
            rows = [np.flatnonzero(labels == c) for c in range(NUM_CLASSES)]
            return [(z[list(draw)], np.arange(NUM_CLASSES)) for draw in itertools.product(*rows)]
        case "dynamic":
            return [(np.float64(state.meta_features), np.asarray(state.meta_labels))]


def moved(before, after):
    """The gradient that a step of plain gradient descent was taken along."""
    return jax.tree.map(lambda a, b: (np.float64(a) - np.float64(b)) / NET_RATE, before, after)


def assert_close_to_differences(found, wanted, rtol=2e-3):
    found, wanted = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (found, wanted)
    )
    assert np.linalg.norm(wanted) > 1e-4
    assert np.linalg.norm(found - wanted) < rtol * np.linalg.norm(wanted)


def hand_slope(config, weights, masses, cost):
    """Of the OT loss in the weights, up to a constant."""
    if config.ot.gradient == "envelope":
        return reference.sinkhorn(weights, masses, cost, 0.1)[1]
    return reference.gradient(weights, masses, cost, 0.1)


@pytest.mark.parametrize(
    ("config", "net", "net_input"),
    [
        (dataclasses.replace(FROZEN, measure="whole"), ATTENTION, "features"),
        (LABEL_COST, MLP, "label"),
        (
            dataclasses.replace(FROZEN, ot=FAST, measure="random_sample", cost="feature"),
            MLP,
            "loss",
        ),
        (DYNAMIC, MLP, "features_and_label"),
    ],
    ids=["whole", "prototype", "random_sample", "dynamic"],
)
def test_a_step_by_hand(config, net, net_input):
    """The head alone: no virtual step."""
    dynamic = config.measure == "dynamic"
    method = make_method(config, net, net_input)
    state = start(method, DATA.replace(meta=None) if dynamic else DATA)
    step = compiled(config, net, net_input)
    after, metrics = step(state, BATCH, None if dynamic else DATA.meta)
    params = state.variables["params"]
    x = hand_input(net_input, params)
    weights = hand_net(net, jax.tree.map(np.float64, state.net_params), x)
    z = problem.hand_features(params, BATCH.inputs)
    factors = {"combined": (1, 1), "feature": (1, 0), "label": (0, 1)}[config.cost]

    found = float(metrics["ot_loss"][0] / metrics["ot_loss"][1])
    problems = []
    for atoms, labels in hand_candidates(config, state):
        cost = problem.hand_cost(z, BATCH.labels, atoms, labels, *factors)
        masses = np.full(len(labels), 1 / len(labels))
        problems.append((reference.loss(weights, masses, cost, 0.1), masses, cost))
    value, masses, cost = min(problems, key=lambda one: abs(one[0] - found))
    np.testing.assert_allclose(found, value, rtol=1e-4)

    slope = hand_slope(config, weights, masses, cost)
    wanted = differences(lambda params: slope @ hand_net(net, params, x), state.net_params)
    assert_close_to_differences(moved(state.net_params, after.net_params), wanted)

    # (c): the sum of losses weighted by the new net.
    used = hand_net(net, jax.tree.map(np.float64, after.net_params), x)
    assert np.abs(used - weights).max() > 3e-4
    gradient = problem.hand_gradient(params, BATCH.inputs, BATCH.labels, jnp.float32(used))
    head = jax.tree.map(lambda p, g: p - RATE * g, params["head"], gradient["head"])
    assert_trees_close(after.variables["params"]["head"], head, atol=1e-5)
    assert_trees_equal(after.variables["params"]["backbone"], params["backbone"])
    assert after.step == 1


@pytest.mark.parametrize(
    ("config", "net"),
    [(VIRTUAL, ATTENTION), (dataclasses.replace(PAPER, second_order=True), MLP)],
    ids=["first order", "second order"],
)
def test_a_step_of_the_whole_network_by_hand(config, net):
    """The OT problem is that of the network after a virtual step, by the weights of the net."""
    state = start(make_method(config, net))
    after, _ = compiled(config, net)(state, BATCH, DATA.meta)
    params = state.variables["params"]
    x = hand_input("features", params)
    masses = np.full(NUM_CLASSES, 1 / NUM_CLASSES)

    with jax.enable_x64(True):
        double = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        of_both = BATCH.inputs, DATA.meta.inputs
        inputs, meta_inputs = (jnp.asarray(x, jnp.float64) for x in of_both)

        def cost_of(weights):
            gradient = problem.hand_gradient(double, inputs, BATCH.labels, jnp.asarray(weights))
            virtual = jax.tree.map(lambda p, g: p - 0.5 * g, double, gradient)
            atoms = problem.class_means(
                problem.hand_features(virtual, meta_inputs), DATA.meta.labels
            )
            z = problem.hand_features(virtual, inputs)
            return problem.hand_cost(z, BATCH.labels, atoms, np.arange(NUM_CLASSES))

        def loss(net_params):
            weights = hand_net(net, net_params, x)
            return reference.loss(weights, masses, cost_of(weights), 0.1)

        def first_order(net_params):
            return slope @ hand_net(net, net_params, x)

        weights = hand_net(net, jax.tree.map(np.float64, state.net_params), x)
        slope = hand_slope(config, weights, masses, cost_of(weights))
        wanted = differences(loss if config.second_order else first_order, state.net_params)
    assert_close_to_differences(moved(state.net_params, after.net_params), wanted)
    used = hand_net(net, jax.tree.map(np.float64, after.net_params), x)
    gradient = problem.hand_gradient(params, BATCH.inputs, BATCH.labels, jnp.float32(used))
    network = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
    assert_trees_close(after.variables["params"], network, atol=1e-5)


def test_the_dynamic_measure_is_drawn_anew_at_a_refresh():
    method = make_method(DYNAMIC)
    data = DATA.replace(meta=None)
    state = start(method, data)
    np.testing.assert_array_equal(state.meta_labels, [0, 0, 1, 1, 2, 2])
    later = method.refresh(state.replace(step=jnp.int32(40)), data)
    assert not np.allclose(later.meta_features, state.meta_features)


def test_labels_alone():
    """Weights of classes: equal within a class, and such that the classes weigh the same."""
    state = start(make_method(LABEL_COST, MLP, "label"))
    step = compiled(LABEL_COST, MLP, "label")
    values = []
    for _ in range(100):
        state, metrics = step(state, BATCH, DATA.meta)
        values.append(float(metrics["ot_loss"][0]))
    labels = np.asarray(BATCH.labels)
    net_params = jax.tree.map(np.float64, state.net_params)
    weights = hand_net(MLP, net_params, np.eye(NUM_CLASSES)[labels])
    for c in range(NUM_CLASSES):
        np.testing.assert_allclose(weights[labels == c].sum(), 1 / NUM_CLASSES, rtol=0.1)
    assert values[-1] < 0.3 * values[0]


def test_eight_devices_equal_one():
    """With a net that compares the examples of the whole batch."""
    state = start(make_method(VIRTUAL, ATTENTION))
    step = compiled(VIRTUAL, ATTENTION)
    eight = make_method(VIRTUAL, ATTENTION, axis_name="batch").step
    spread, spread_metrics = problem.on_eight_devices(eight, state, BATCHES, DATA.meta)
    for i in range(3):
        state, metrics = step(state, jax.tree.map(lambda x, i=i: x[i], BATCHES), DATA.meta)
        at_step = jax.tree.map(lambda x, i=i: x[i], spread_metrics)
        assert_trees_close(at_step, metrics, rtol=1e-3)
    assert_trees_close(spread, state, rtol=1e-3, atol=1e-4)


def test_no_meta_set():
    for config in (PAPER, dataclasses.replace(DYNAMIC, meta_cross_entropy=1.0)):
        with pytest.raises(ValueError, match="ot_weight_net needs a meta set: take meta_per_class"):
            start(make_method(config), DATA.replace(meta=None))
    meta = jax.tree.map(lambda x: x[DATA.meta.labels != 1], DATA.meta)
    with pytest.raises(ValueError, match=r"1 of 3 classes have no meta example: 1\."):
        start(make_method(PAPER), DATA.replace(meta=meta))


@pytest.mark.parametrize(
    "choice",
    [
        {"weighting": "global"},
        {"weighting": "closed_form"},
        {"weighting": "global", "sampling": True},
        {"initial": "effective_number"},
        {"simplex": "none"},
        {"from_scratch": True},
        {"problem": "device"},
    ],
    ids=str,
)
def test_choices_of_kept_weights_are_refused(choice):
    with pytest.raises(ValueError, match="concerns weights that are kept for each example; leave"):
        make_method(OTReweighting(**choice))


def test_errors():
    with pytest.raises(ValueError, match="second_order is for one device"):
        make_method(OTReweighting(second_order=True), axis_name="batch")
    with pytest.raises(ValueError, match="net_input is 'logits'; choose one of"):
        make_method(PAPER, net_input="logits")
