"""OT re-weighting: each of its choices, its gradients, its state, its devices."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.methods.base import Batch, TrainingData
from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.methods.ot.reweight import ot_reweight
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import Model, flax_model
from otrw_jax.ot.entropic import EntropicOT
from tests.methods import problem
from tests.methods.problem import MODEL, NUM_CLASSES, assert_trees_close, assert_trees_equal, jit
from tests.ot import reference

RATE, WEIGHT_RATE = 0.3, 0.02
PRECISE = EntropicOT(threshold=1e-6, max_iterations=2000)
DATA = problem.make_data()
BATCHES = problem.make_batches(DATA, 5)
FIRST = jax.tree.map(lambda x: x[0], BATCHES)
VALUES = np.random.default_rng(1).uniform(0.5, 2.0, 40).astype(np.float32)

PAPER = OTReweighting(virtual_learning_rate=0.5)
# The head alone, in evaluation mode: the features of the loss pass serve the OT problem.
FROZEN = OTReweighting(ot=PRECISE, trainable="head/.*", batch_norm=False)
GLOBAL = dataclasses.replace(FROZEN, weighting="global", meta_features="refresh", reduction="mean")
# Where the gradient is not what is tested, the one that compiles fastest.
FAST = EntropicOT(gradient="envelope")
FROZEN_RANDOM = dataclasses.replace(FROZEN, measure="random_sample", cost="feature", simplex="none")


@functools.cache
def make_method(config, model=MODEL, axis_name=None):
    optimizer, weight_optimizer = optax.sgd(RATE), optax.sgd(WEIGHT_RATE, momentum=0.9)
    return ot_reweight(model, optimizer, weight_optimizer, NUM_CLASSES, config, axis_name=axis_name)


def make_state(config, model=MODEL, data=DATA, values=None):
    variables = problem.make_variables(model)
    state = make_method(config, model).init(jax.random.key(0), variables, data)
    if values is None:
        return state
    return state.replace(weights=state.weights.replace(values=jnp.asarray(values)))


@functools.cache
def compiled(config, model=MODEL):
    return jit(make_method(config, model).step)


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
