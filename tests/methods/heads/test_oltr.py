"""OLTR against its formulas written with one array of all differences, in float64 where it can."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.methods.base import Examples, TrainingData
from otrw_jax.methods.heads.oltr import CLOSEST, _class_means, head_logits, meta_embedding, oltr
from otrw_jax.models.model import identity_model
from tests.methods import problem
from tests.methods.problem import MODEL, NUM_CLASSES, assert_trees_close, assert_trees_equal, jit

RATE, MEMORY_RATE, WEIGHT = 0.3, 0.7, 0.05
DATA = problem.make_data()
BATCHES = problem.make_batches(DATA, 5)
FIRST = jax.tree.map(lambda x: x[0], BATCHES)
D = 8


def make(model=MODEL, optimizer=None, memory_optimizer=None, **options):
    optimizer = optimizer or optax.sgd(RATE)
    memory_optimizer = memory_optimizer or optax.sgd(MEMORY_RATE)
    options = {"centroid_weight": WEIGHT, **options}
    return oltr(model, optimizer, memory_optimizer, NUM_CLASSES, **options)


def start(method, model=MODEL, scale=1.0, key=0):
    """A state after `init`, of a network whose last layer before the head is multiplied."""
    variables = problem.make_variables(model)
    if scale != 1:
        last = variables["params"]["backbone"]["Dense_1"]
        variables["params"]["backbone"]["Dense_1"] = jax.tree.map(lambda x: scale * x, last)
    return compiled_init(method)(jax.random.key(key), variables)


@functools.cache
def compiled_init(method):
    return jit(lambda key, variables: method.init(key, variables, DATA))


METHOD = make()
STEP = jit(METHOD.step)
NORMED = problem.normed_model()
NORMED_METHOD = make(NORMED)


@functools.cache
def start_scaled(scale):
    return start(METHOD, scale=scale)


def plain_logits(head, z, memory):
    """In any array library's float; all distances at once."""
    xp = jnp if isinstance(z, jax.Array) else np
    distance = xp.sqrt(((z[:, None, :] - memory[None]) ** 2).sum(-1)).min(1, keepdims=True)
    scores = xp.exp(z @ head["hallucinator"]["kernel"] + head["hallucinator"]["bias"][None])
    recalled = scores / scores.sum(1, keepdims=True) @ memory
    selector = xp.tanh(z @ head["selector"]["kernel"] + head["selector"]["bias"][None])
    v = 10 / distance * (z + selector * recalled)
    kernel = head["classifier"]["kernel"]
    cosines = (v @ kernel) / xp.sqrt((kernel**2).sum(0, keepdims=True))
    return 16 * cosines / (1 + xp.sqrt((v**2).sum(1, keepdims=True)))


def plain_centroid_loss(z, memory, y):
    squared = ((z[:, None, :] - memory[None]) ** 2).sum(-1)
    mine = y[:, None] == jnp.arange(NUM_CLASSES)[None]
    away = jnp.where(mine, 0, squared).sum() / squared.size
    return jnp.where(mine, squared, 0).sum() / len(z) / 2 + 0.01 * jnp.maximum(10 - away, 0), away


def test_the_start():
    """The memory is the class means in evaluation mode; W_h is the head that was there."""
    state = start(NORMED_METHOD, NORMED)
    variables = problem.make_variables(NORMED)
    z, _ = jit(lambda v, x: NORMED.features(v, x, False))(variables, DATA.train.inputs)
    head = state.variables["params"]["head"]
    np.testing.assert_allclose(
        head["memory"], problem.class_means(z, DATA.train.labels), rtol=1e-4, atol=1e-5
    )
    given = variables["params"]["head"]["Dense_0"]
    assert_trees_close(head["hallucinator"], given, rtol=1e-5)
    assert_trees_equal(state.variables["params"]["backbone"], variables["params"]["backbone"])
    assert_trees_equal(state.variables["state"], variables["state"])


def test_fresh_parts_by_key():
    method = make(hallucinator_from_head=False)
    heads = [start(method, key=i).variables["params"]["head"] for i in (0, 0, 1)]
    assert_trees_equal(heads[0], heads[1])
    assert_trees_equal(heads[0].pop("memory"), heads[2].pop("memory"))
    for one, other in zip(jax.tree.leaves(heads[0]), jax.tree.leaves(heads[2]), strict=True):
        assert (one != other).all()
        assert 0.5 * D**-0.5 < np.abs(one).max() <= D**-0.5
    shapes = jax.tree.map(jnp.shape, heads[0])
    assert shapes == {
        "hallucinator": {"kernel": (D, NUM_CLASSES), "bias": (NUM_CLASSES,)},
        "selector": {"kernel": (D, D), "bias": (D,)},
        "classifier": {"kernel": (D, NUM_CLASSES)},
    }


def test_logits():
    method = make(hallucinator_from_head=False)
    head = start(method).variables["params"]["head"]
    z = np.random.default_rng(0).normal(size=(20, D))
    found = jit(method.logits)(head, jnp.asarray(z, jnp.float32))
    exact = jax.tree.map(np.float64, head)
    np.testing.assert_allclose(found, plain_logits(exact, z, exact["memory"]), rtol=1e-3, atol=1e-4)
    assert np.abs(found).max() < 16


@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_a_step_by_hand(scale):
    """Where the other centroids are near, and are pushed away, and where they are far."""
    state = start_scaled(scale)
    after, metrics = STEP(state, FIRST, None)
    before = state.variables["params"]
    memory, y = before["head"]["memory"], FIRST.labels

    def objective(params):
        z = problem.hand_features(params, FIRST.inputs)
        logits = plain_logits(params["head"], z, memory)
        plain = -jax.nn.log_softmax(logits)[jnp.arange(16), y].mean()
        centroid, away = plain_centroid_loss(z, memory, y)
        return plain + WEIGHT * centroid, (plain, centroid, away)

    gradient, (plain, centroid, away) = jit(jax.grad(objective, has_aux=True))(before)
    assert (away < 10) == (scale < 1)
    wanted = jax.tree.map(lambda p, g: p - RATE * g, before, gradient)
    wanted["head"]["memory"] = memory - MEMORY_RATE * hand_memory_gradient(before, memory, away)
    assert_trees_close(after.variables["params"], wanted, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], (16 * plain, 16), rtol=1e-4)
    np.testing.assert_allclose(metrics["centroid_loss"], (centroid, 1), rtol=1e-4)
    assert after.step == 1


def hand_memory_gradient(params, memory, away):
    """Class by class and example by example."""
    z, y = np.float64(problem.hand_features(params, FIRST.inputs)), np.asarray(FIRST.labels)
    memory = np.float64(memory)
    rows = []
    for c in range(NUM_CLASSES):
        mine, others = z[y == c], z[y != c]
        row = sum((memory[c] - f for f in mine), np.zeros(D)) / (1 + len(mine)) / 16
        if away < 10:
            row -= WEIGHT * 0.01 * sum(2 * (memory[c] - f) for f in others) / (16 * NUM_CLASSES)
        rows.append(row)
    return np.stack(rows)


@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_the_memory_learns_by_the_centroid_loss(scale):
    """Its rule is a class's factor times the derivative of one term, and that of the other."""
    state = start_scaled(scale)
    head = state.variables["params"]["head"]
    memory, y = head["memory"], FIRST.labels
    z = problem.hand_features(state.variables["params"], FIRST.inputs)

    def terms(memory):
        drawing = ((z - memory[y]) ** 2).sum() / 16 / 2
        return drawing, plain_centroid_loss(z, memory, y)[0] - drawing

    drawing, pushing = jit(jax.jacobian(terms))(memory)
    after, _ = STEP(state, FIRST, None)
    taken = (memory - after.variables["params"]["head"]["memory"]) / MEMORY_RATE
    factor = 1 / (1 + np.bincount(y, minlength=NUM_CLASSES))[:, None]
    wanted = factor * drawing + WEIGHT * pushing
    np.testing.assert_allclose(taken, wanted, rtol=1e-3, atol=1e-5)


def test_no_gradient_of_the_logits_goes_to_the_memory():
    head = start_scaled(1.0).variables["params"]["head"]
    z = problem.hand_features(problem.make_variables()["params"], FIRST.inputs)
    gradient = jit(jax.grad(lambda head: (head_logits(head, z) ** 2).sum()))(head)
    assert not gradient.pop("memory").any()
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_the_new_head_alone():
    method = make(trainable="head/.*", optimizer=optax.adam(RATE))
    state = start(method)
    after, _ = jit(method.step)(state, FIRST, None)
    before, params = state.variables["params"], after.variables["params"]
    assert_trees_equal(params["backbone"], before["backbone"])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), params["head"], before["head"])
    assert all(jax.tree.leaves(moved))
    slots = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert len(slots) == 10  # Adam's two moments of five arrays: none of the memory.


def test_batch_statistics_move_in_training_mode_alone():
    state = start(NORMED_METHOD, NORMED)
    for batch_norm in (True, False):
        after, _ = jit(make(NORMED, batch_norm=batch_norm).step)(state, FIRST, None)
        before, now = (s.variables["state"]["batch_stats"] for s in (state, after))
        moved = (now["BatchNorm_0"]["mean"] != before["BatchNorm_0"]["mean"]).any()
        assert moved == batch_norm


def test_every_class_is_drawn_alike():
    weights = np.asarray(METHOD.sampling(start_scaled(1.0), DATA.train.labels))
    labels = np.asarray(DATA.train.labels)
    mass = np.bincount(labels, weights)
    np.testing.assert_allclose(mass, mass[0], rtol=1e-5)
    assert len(set(zip(labels, weights, strict=True))) == NUM_CLASSES


def test_features_on_a_centroid_and_classes_without_examples():
    """A centroid of zero, that of an empty class, and features on it, on another, and at zero."""
    model = identity_model(problem.LinearHead(NUM_CLASSES))
    inputs = jnp.asarray([[0.0, 0, 0], [1, 2, 3], [1, 2, 3]])
    train = Examples(inputs, jnp.array([0, 1, 1]))
    method = make(model)
    variables = problem.make_variables(model)
    variables["params"]["head"]["Dense_0"]["kernel"] = jnp.ones((3, NUM_CLASSES))
    data = TrainingData(train, None, NUM_CLASSES)
    state = jit(lambda key, v: method.init(key, v, data))(jax.random.key(0), variables)
    head = state.variables["params"]["head"]
    np.testing.assert_array_equal(head["memory"], [[0, 0, 0], [1, 2, 3], [0, 0, 0]])
    v = jit(meta_embedding)(head, inputs)
    assert (np.linalg.norm(v[1:], axis=1) > 1 / CLOSEST).all()
    batch = problem.batch_of(data, [0, 1, 2])
    after, metrics = jit(method.step)(state, batch, None)
    by_feature = jit(jax.grad(lambda z: (method.logits(head, z) ** 2).sum()))(inputs)
    for leaf in jax.tree.leaves((after, metrics, by_feature)):
        assert np.isfinite(leaf).all()


def test_padding_moves_no_backbone():
    state = start_scaled(1.0)
    batch = FIRST._replace(labels=jnp.full_like(FIRST.labels, -1))
    after, _ = STEP(state, batch, None)
    of_backbone = [one.variables["params"]["backbone"] for one in (after, state)]
    assert_trees_equal(*of_backbone)


def test_class_means_of_half_precision_are_added_up_in_float32():
    z = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (8000, 2)), jnp.float16)
    for dtype in (jnp.float16, jnp.bfloat16):
        given = z.astype(dtype)
        means = _class_means(given, jnp.zeros(8000, jnp.int32), 1)
        np.testing.assert_allclose(means[0], np.float64(given).mean(0), rtol=1e-4)


def test_what_is_refused():
    inputs_missing = TrainingData(Examples(None, DATA.train.labels), None, NUM_CLASSES)
    with pytest.raises(ValueError, match=r"give data\.train\.inputs"):
        make().init(jax.random.key(0), problem.make_variables(), inputs_missing)
    method = oltr(MODEL, optax.sgd(RATE), optax.sgd(RATE), NUM_CLASSES + 1)
    with pytest.raises(ValueError, match="the method is for 4 classes and the data have 3"):
        start(method)


def test_eight_devices_equal_one():
    """Where the other centroids are near: the mean distance is that of all devices."""
    eight = make(axis_name="batch")
    state = start_scaled(0.2)
    spread, spread_metrics = problem.on_eight_devices(eight.step, state, BATCHES, None)
    for i in range(5):
        state, metrics = STEP(state, jax.tree.map(lambda x, i=i: x[i], BATCHES), None)
        at_step = jax.tree.map(lambda x, i=i: x[i], spread_metrics)
        assert_trees_close(at_step, metrics, rtol=1e-3)
    assert_trees_close(spread, state, rtol=1e-3, atol=1e-5)
