"""Steps of Algorithm 1: scanned, repeated, on eight devices; how often they pass the network."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from otrw_jax.methods.base import TrainingData
from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.methods.ot.reweight import ot_reweight
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import Model, flax_model
from tests.methods import problem
from tests.methods.ot.reweighting import (
    BATCHES,
    DATA,
    FAST,
    FIRST,
    FROZEN,
    FROZEN_RANDOM,
    GLOBAL,
    PAPER,
    compiled,
    make_method,
    make_state,
)
from tests.methods.problem import MODEL, assert_trees_close, assert_trees_equal, jit
from tests.ot import reference


def _guarded_model(calls=None):
    """MODEL, whose features refuse to be differentiated and report the mode of each pass."""

    @jax.custom_vjp
    def guard(z):
        return z

    def refuse(residuals, gradient):
        raise AssertionError("backward through the backbone")

    guard.defvjp(lambda z: (z, None), refuse)

    def features(variables, inputs, train):
        if calls is not None:
            calls.append(train)
        z, state = MODEL.features(variables, inputs, train)
        return guard(z), state

    return Model(MODEL.init, features, MODEL.logits)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_frozen_backbone_has_no_backward_pass(batch_norm):
    model = _guarded_model()
    config = dataclasses.replace(
        FROZEN, batch_norm=batch_norm, meta_cross_entropy=1.0, second_order=True
    )
    state = make_state(config, model)
    jax.eval_shape(make_method(config, model).step, state, FIRST, DATA.meta)
    trained = dataclasses.replace(config, trainable=".*")
    state = make_state(trained, model)
    with pytest.raises(AssertionError, match="backward through the backbone"):
        jax.eval_shape(make_method(trained, model).step, state, FIRST, DATA.meta)


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({"cost": "label", "trainable": ".*", "batch_norm": True}, [True]),
        ({"trainable": "head/.*", "batch_norm": False}, [False, False]),  # Losses, meta.
        ({"meta_features": "refresh"}, [False]),
        ({"batch_norm": True, "meta_features": "refresh"}, [True, False]),
        ({"batch_norm": True, "meta_features": "refresh", "features": "loss_pass"}, [True]),
    ],
)
def test_no_more_forward_passes_than_needed(changes, passes):
    calls = []
    config = dataclasses.replace(FROZEN, **changes)
    model = MODEL if config.trainable == ".*" else _guarded_model(calls)
    if config.trainable == ".*":
        plain = MODEL.features
        model = MODEL._replace(features=lambda *args: calls.append(args[2]) or plain(*args))
    state = make_state(config, model)
    calls.clear()
    jax.eval_shape(make_method(config, model).step, state, FIRST, DATA.meta)
    assert calls == passes


def test_a_refresh_is_compiled_once():
    calls = []
    plain = MODEL.features
    model = MODEL._replace(features=lambda *args: calls.append(args[2]) or plain(*args))
    method = make_method(GLOBAL, model)
    state = method.init(jax.random.key(0), problem.make_variables(), DATA)
    first = len(calls)
    variables = problem.make_variables(seed=9)
    later = method.refresh(state.replace(variables=variables), DATA)
    assert len(calls) == first
    assert not np.allclose(later.weights.values, state.weights.values)


@pytest.mark.parametrize(
    ("features", "meta_cross_entropy"), [("loss_pass", 1.0), ("eval_pass", 0.0)]
)
def test_batch_statistics(features, meta_cross_entropy):
    """They see the batch, then the meta set of the extra term; never the features' passes."""
    model = problem.normed_model()
    config = dataclasses.replace(
        FROZEN,
        ot=FAST,
        batch_norm=True,
        features=features,
        cost="feature",
        meta_cross_entropy=meta_cross_entropy,
    )
    state = make_state(config, model)
    state = state.replace(  # Running statistics far from the batch's.
        variables=jax.tree.map(lambda x: x + 0.3 * (x.ndim == 1), state.variables)
    )
    after, metrics = compiled(config, model)(state, FIRST, DATA.meta)

    z, new_state = model.features(state.variables, FIRST.inputs, True)
    if features == "eval_pass":
        z, _ = model.features(state.variables, FIRST.inputs, False)
    meta_z, _ = model.features(state.variables, DATA.meta.inputs, False)
    atoms = problem.class_means(meta_z, DATA.meta.labels)
    cost = problem.hand_cost(z, FIRST.labels, atoms, np.arange(3), 1.0, 0.0)
    loss = reference.loss(np.full(16, 1 / 16), np.full(3, 1 / 3), cost, 0.1)
    np.testing.assert_allclose(metrics["ot_loss"][0], loss, rtol=1e-4)

    if meta_cross_entropy:
        moved = {**state.variables, "state": new_state}
        _, new_state = model.features(moved, DATA.meta.inputs, True)
    assert_trees_close(after.variables["state"], new_state)


def test_scan_is_single_steps():
    state = make_state(PAPER)
    step = make_method(PAPER).step
    scanned, metrics = jit(
        lambda state, batches, meta: jax.lax.scan(lambda s, b: step(s, b, meta), state, batches)
    )(state, BATCHES, DATA.meta)
    for i in range(5):
        batch = jax.tree.map(lambda x, i=i: x[i], BATCHES)
        state, one = compiled(PAPER)(state, batch, DATA.meta)
        np.testing.assert_allclose(metrics["ot_loss"][0][i], one["ot_loss"][0], rtol=1e-3)
    assert_trees_close(scanned, state, rtol=1e-3, atol=1e-4)


def test_two_runs_are_identical():
    ends = []
    for _ in range(2):
        state = make_state(FROZEN_RANDOM)
        for i in range(3):
            batch = jax.tree.map(lambda x, i=i: x[i], BATCHES)
            state, _ = compiled(FROZEN_RANDOM)(state, batch, DATA.meta)
        ends.append(state)
    assert_trees_equal(*ends)


@pytest.mark.parametrize(
    ("config", "normed"),
    [
        (PAPER, False),
        (dataclasses.replace(FROZEN, weighting="closed_form"), False),
        (GLOBAL, False),
        (
            OTReweighting(
                ot=FAST,
                features="eval_pass",
                simplex="none",
                meta_cross_entropy=2.0,
                reduction="mean",
            ),
            True,
        ),
    ],
    ids=["paper", "closed form", "global", "batch norm and meta cross-entropy"],
)
def test_eight_devices_equal_one(config, normed):
    single_model = problem.normed_model() if normed else MODEL
    spread_model = problem.normed_model("batch") if normed else MODEL
    state = make_state(config, single_model)
    step = make_method(config, spread_model, "batch").step
    spread, spread_metrics = problem.on_eight_devices(step, state, BATCHES, DATA.meta)
    for i in range(5):
        batch = jax.tree.map(lambda x, i=i: x[i], BATCHES)
        state, metrics = compiled(config, single_model)(state, batch, DATA.meta)
        at_step = jax.tree.map(lambda x, i=i: x[i], spread_metrics)
        assert_trees_close(at_step, metrics, rtol=1e-3)
    assert_trees_close(spread, state, rtol=1e-3, atol=1e-4)


def test_two_classes_and_a_batch_of_fifty():
    """The state is donated, as a training loop does, and nothing of the caller's goes with it."""
    train, meta = problem.make_examples((180, 20), 5), problem.make_examples((5, 5), 6)
    data = TrainingData(train, meta, 2)
    model = flax_model(MLP((10, 8)), LinearHead(2))
    method = ot_reweight(model, optax.sgd(0.05), optax.sgd(0.002), 2, OTReweighting())
    state = method.init(jax.random.key(0), problem.make_variables(model), data)
    step = jit(method.step, donate_argnums=0)
    rng = np.random.default_rng(0)
    for _ in range(40):
        state, metrics = step(state, problem.batch_of(data, rng.permutation(200)[:50]), data.meta)
        assert all(np.isfinite(total) for total, _ in metrics.values())
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.variables))
    values, labels = np.asarray(state.weights.values), np.asarray(train.labels)
    assert np.isfinite(values).all() and (values >= 0).all()
    assert values[labels == 1].mean() > 1.5 > 1 > values[labels == 0].mean()
    assert method.refresh(state, data).meta_labels.shape == (10,)
