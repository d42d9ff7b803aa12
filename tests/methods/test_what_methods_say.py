"""What methods say of themselves: their weights, and whether they read the training inputs."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from otrw_jax import (
    OTProblem,
    OTReweighting,
    adapted,
    averaged,
    erm,
    lws,
    ot_reweight,
    ot_weight_net,
    sampled,
    with_fresh_head,
)
from otrw_jax.methods.heads.meta_set import meta_centroids
from otrw_jax.ot.nets import MLPWeightNet
from otrw_jax.samplers import class_power

from . import problem
from .every_method import METHODS, RATE, SGD
from .problem import MODEL, NUM_CLASSES

DATA = problem.make_data()
COUNT = DATA.train.labels.shape[0]
LABELS_ALONE = DATA.replace(train=DATA.train._replace(inputs=None))
VARIABLES = problem.make_variables()
REFRESHED = dataclasses.replace(OTProblem(), meta_features="refresh", trainable="head/.*")
DYNAMIC = dataclasses.replace(REFRESHED, measure="dynamic")
BY_LABELS = OTReweighting(cost="label", weighting="global", meta_features="refresh")

net = functools.partial(ot_weight_net, net=MLPWeightNet(4), net_optimizer=SGD)
MORE = {
    "net, dynamic": lambda model: net(model, SGD, num_classes=NUM_CLASSES, config=DYNAMIC),
    "global, labels": lambda model: ot_reweight(model, SGD, SGD, NUM_CLASSES, BY_LABELS),
    "meta_centroids": lambda model: meta_centroids(model, NUM_CLASSES),
    "averaged oltr": lambda model: averaged(METHODS["oltr"](model), 0.9),
    "sampled ncm": lambda model: sampled(METHODS["ncm"](model), class_power(NUM_CLASSES, 0.0)),
    "fresh global": lambda model: with_fresh_head(
        METHODS["global"](model), lambda key: VARIABLES["params"]["head"]
    ),
}
READS = {"global", "oltr", "ncm", "net, dynamic", "averaged oltr", "sampled ncm", "fresh global"}
WEIGHS = {"paper", "released", "global", "net", "hu", "net, dynamic", "global, labels"} | {
    "fresh global"
}


@pytest.mark.parametrize("name", METHODS | MORE)
def test_whether_the_training_inputs_are_read(name):
    """Who does not read them starts, and is refreshed, from the labels alone."""
    method = (METHODS | MORE)[name](MODEL)
    assert method.reads_inputs == (name in READS)

    def start(data):
        state = method.init(jax.random.key(0), VARIABLES, data)
        return state if method.refresh is None else method.refresh(state, data)

    jax.eval_shape(lambda: start(DATA))
    if method.reads_inputs:
        with pytest.raises(ValueError, match=r"the .*training (set|features).*; give data\.train"):
            jax.eval_shape(lambda: start(LABELS_ALONE))
    else:
        jax.eval_shape(lambda: start(LABELS_ALONE))


def read(variables):
    return DATA.train._replace(inputs=MODEL.features(variables, DATA.train.inputs, False)[0])


@pytest.mark.parametrize("name", METHODS | MORE)
def test_the_weights_of_a_method(name):
    method = (METHODS | MORE)[name](MODEL)
    assert (method.weights is not None) == (name in WEIGHS)
    if method.weights is None:
        return
    asked = []

    def asked_for(variables):
        asked.append(name)
        return read(variables)

    state = method.init(jax.random.key(0), VARIABLES, DATA)
    weights = np.asarray(method.weights(state, asked_for, 8))
    assert weights.shape == (COUNT,) and (weights >= 0).all()
    assert bool(asked) == name.startswith("net")


def test_wrappers_pass_the_weights_on():
    """Those of a net are of the network that is evaluated: the average."""
    inner = METHODS["net"](MODEL)
    method = averaged(inner, 0.9)
    state = method.init(jax.random.key(0), VARIABLES, DATA)
    moved = jax.tree.map(lambda x: 2 * x, state.inner.variables)
    apart = state.replace(inner=state.inner.replace(variables=moved))
    found = method.weights(apart, read, 8)
    np.testing.assert_array_equal(found, inner.weights(state.inner, read, 8))
    assert not np.allclose(found, inner.weights(apart.inner, read, 8))
    kept = averaged(METHODS["paper"](MODEL), 0.9)
    state = kept.init(jax.random.key(0), VARIABLES, DATA)
    np.testing.assert_array_equal(kept.weights(state, read, 8), np.ones(COUNT))
    assert averaged(erm(MODEL, SGD), 0.9).weights is None
    assert adapted(MODEL, lws(), lambda model, trainable: erm(model, SGD)).weights is None
    weighed = adapted(MODEL, lws(), lambda m, t: ot_reweight(m, SGD, SGD, NUM_CLASSES))
    assert weighed.weights is not None and not weighed.reads_inputs


@pytest.mark.parametrize("asked, size", [(7, 7), (25, 25), (COUNT, COUNT), (100, COUNT)])
def test_the_weights_of_a_net_are_means_over_batches(asked, size):
    """By hand: over the batches of ten random orders, the last filled from the start of its own."""
    method = net(MODEL, optax.sgd(RATE), num_classes=NUM_CLASSES, net_input="loss")
    state = method.init(jax.random.key(0), VARIABLES, DATA)
    found = method.weights(state, read, asked)
    params, inputs = VARIABLES["params"], DATA.train.inputs
    losses = np.asarray(problem.hand_losses(params, inputs, DATA.train.labels))[:, None]
    rng, sums, times = np.random.default_rng(0), np.zeros(COUNT), np.zeros(COUNT)
    for _ in range(10):
        order = rng.permutation(COUNT).tolist()
        while len(order) % size:
            order.append(order[len(order) - COUNT])
        for ids in np.array(order).reshape(-1, size):
            hidden = np.tanh(
                losses[ids] @ state.net_params["Dense_0"]["kernel"]
                + state.net_params["Dense_0"]["bias"][None, :]
            )
            scores = hidden @ np.asarray(state.net_params["Dense_1"]["kernel"])[:, 0]
            sums[ids] += size * np.exp(scores) / np.exp(scores).sum()
            times[ids] += 1
    np.testing.assert_allclose(found, sums / times, rtol=1e-4)
    assert found.std() > 1e-3 and found.mean() == pytest.approx(1, rel=0.05)
