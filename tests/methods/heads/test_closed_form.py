"""Heads found without a gradient step, against NumPy; methods whose steps only measure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.methods.base import Examples, TrainingData
from otrw_jax.methods.heads import closed_form
from otrw_jax.methods.heads.closed_form import TAUS, nearest_class_mean, tau_normalised
from otrw_jax.methods.wrappers.corrected import corrected
from otrw_jax.models.model import identity_model
from otrw_jax.posthoc import adjust_logits, ot_correction
from tests.methods import problem
from tests.methods.problem import MODEL, NUM_CLASSES, assert_trees_equal, jit

DATA = problem.make_data()
VARIABLES = problem.make_variables()
BATCHES = problem.make_batches(DATA, 2)
FIRST = jax.tree.map(lambda x: x[0], BATCHES)
# Long vectors of frequent classes, as training leaves them.
LENGTHS = np.array([9.0, 1.5, 0.3])


def with_kernel(kernel):
    params = VARIABLES["params"]
    head = {"Dense_0": {**params["head"]["Dense_0"], "kernel": jnp.asarray(kernel, jnp.float32)}}
    return {**VARIABLES, "params": {**params, "head": head}}


def start(method, variables=VARIABLES, data=DATA):
    return method.init(jax.random.key(0), variables, data)


def features(x):
    return np.float64(problem.hand_features(VARIABLES["params"], x))


def head_of(state):
    return state.variables["params"]["head"]


KERNEL = np.float64(VARIABLES["params"]["head"]["Dense_0"]["kernel"])
UNEQUAL = with_kernel(KERNEL / np.linalg.norm(KERNEL, axis=0) * LENGTHS)


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0, 2.0])
def test_tau_by_hand(tau):
    method = tau_normalised(MODEL, NUM_CLASSES, tau)
    state = start(method, UNEQUAL, DATA.replace(meta=None))
    wanted = KERNEL / np.linalg.norm(KERNEL, axis=0) * LENGTHS ** (1 - tau)
    assert set(head_of(state)) == {"kernel", "tau"}
    np.testing.assert_allclose(head_of(state)["kernel"], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(head_of(state)["tau"], tau)
    z = features(FIRST.inputs)
    logits = method.logits(head_of(state), jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(logits, z @ wanted, rtol=1e-4, atol=1e-4)  # No bias.
    assert_trees_equal(state.variables["params"]["backbone"], VARIABLES["params"]["backbone"])


def balanced_accuracies(data, kernel):
    z, y = features(data.meta.inputs), np.asarray(data.meta.labels)
    accuracies = []
    for tau in TAUS:
        predictions = (z @ (kernel / np.linalg.norm(kernel, axis=0) ** tau)).argmax(1)
        accuracies.append(np.mean([(predictions[y == c] == c).mean() for c in range(3)]))
    return np.array(accuracies)


@pytest.mark.parametrize(("seed", "rows"), [(2, closed_form.ROWS), (6, closed_form.ROWS), (6, 7)])
def test_tau_is_the_smallest_of_the_best_on_the_meta_set(seed, rows, monkeypatch):
    """Class vectors of least squares, but for their lengths."""
    monkeypatch.setattr(closed_form, "ROWS", rows)
    data = DATA.replace(meta=problem.make_examples((7, 5, 6), seed))
    targets = np.eye(3)[DATA.train.labels] - 1 / 3
    kernel = np.linalg.lstsq(features(DATA.train.inputs), targets, rcond=None)[0]
    kernel = kernel / np.linalg.norm(kernel, axis=0) * LENGTHS
    state = start(tau_normalised(MODEL, NUM_CLASSES), with_kernel(kernel), data)
    accuracies = balanced_accuracies(data, kernel)
    assert accuracies.max() > accuracies[0]
    np.testing.assert_allclose(head_of(state)["tau"], TAUS[int(accuracies.argmax())])


def test_a_class_vector_of_length_zero():
    variables = with_kernel(KERNEL * np.array([1.0, 1.0, 0.0]))
    state = start(tau_normalised(MODEL, NUM_CLASSES), variables)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(state))
    assert (head_of(state)["kernel"][:, 2] == 0).all()


def test_tau_needs_a_meta_set():
    with pytest.raises(ValueError, match="tau is chosen on the meta set and there is none"):
        start(tau_normalised(MODEL, NUM_CLASSES), data=DATA.replace(meta=None))


def test_nearest_class_mean_by_hand():
    method = nearest_class_mean(MODEL, NUM_CLASSES)
    state = start(method)
    means = problem.class_means(features(DATA.train.inputs), DATA.train.labels)
    z = features(FIRST.inputs)
    lengths = np.outer(np.linalg.norm(z, axis=1), np.linalg.norm(means, axis=1))
    logits = method.logits(head_of(state), jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(logits, z @ means.T / lengths, rtol=1e-5, atol=1e-5)
    assert jnp.isfinite(method.logits(head_of(state), jnp.zeros((1, 8)))).all()


def test_more_examples_than_a_chunk_and_batch_normalisation():
    """Running statistics serve, and stay."""
    model = problem.normed_model()
    variables = problem.make_variables(model)
    data = DATA.replace(train=problem.make_examples((400, 150, 3), 8))
    state = start(nearest_class_mean(model, NUM_CLASSES), variables, data)
    z, _ = jit(model.features, static_argnums=2)(variables, data.train.inputs, False)
    means = problem.class_means(z, data.train.labels)
    wanted = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(head_of(state)["kernel"].T, wanted, rtol=1e-4, atol=1e-5)
    assert_trees_equal(state.variables["state"], variables["state"])


def test_a_class_without_examples_is_never_predicted():
    few = Examples(*jax.tree.map(lambda x: x[DATA.train.labels != 1], tuple(DATA.train)))
    method = nearest_class_mean(MODEL, NUM_CLASSES)
    state = start(method, data=DATA.replace(train=few))
    z = jnp.asarray(np.random.default_rng(0).normal(size=(500, 8)), jnp.float32)
    logits = method.logits(head_of(state), z)
    assert jnp.isfinite(logits).all() and jnp.isfinite(jax.nn.softmax(logits)).all()
    assert set(np.unique(logits.argmax(1))) == {0, 2}
    with pytest.raises(ValueError, match="reads the features of the whole training set"):
        start(method, data=DATA.replace(train=Examples(None, DATA.train.labels)))


METHODS = {
    "tau": tau_normalised(MODEL, NUM_CLASSES),
    "mean": nearest_class_mean(MODEL, NUM_CLASSES),
    "logit adjustment": corrected(MODEL, correct=lambda z: adjust_logits(z, problem.COUNTS)),
    "transport": corrected(MODEL, correct=ot_correction),
    "other logits": corrected(MODEL, logits=lambda head, z: -MODEL.logits(head, z)),
}


@pytest.mark.parametrize("name", METHODS)
def test_steps_only_measure(name):
    method = METHODS[name]
    state = start(method)
    step = jit(method.step)
    after, metrics = step(state, FIRST, DATA.meta)
    after, _ = step(after, FIRST, DATA.meta)
    assert_trees_equal(after.variables, state.variables)
    assert after.step == 2
    z = jnp.asarray(features(FIRST.inputs), jnp.float32)
    logits = np.float64((method.logits or MODEL.logits)(head_of(state), z))
    y = np.asarray(FIRST.labels)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(metrics["loss"], (-log_p[np.arange(16), y].sum(), 16), rtol=1e-4)
    np.testing.assert_allclose(metrics["error"], ((logits.argmax(1) != y).sum(), 16))


@pytest.mark.parametrize("name", METHODS)
def test_abstract_values(name):
    shapes = jax.eval_shape(lambda *of: start(METHODS[name], *of), VARIABLES, DATA)
    state = start(METHODS[name])
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    for shape, leaf in zip(jax.tree.leaves(shapes), jax.tree.leaves(state), strict=True):
        assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)


def test_a_correction_leaves_the_network_as_it_is():
    for name in ("logit adjustment", "transport"):
        method = METHODS[name]
        assert_trees_equal(start(method).variables, VARIABLES)
        assert method.logits is None and method.refresh is None and method.sampling is None
        assert jit(method.correct)(jnp.ones((4, 3))).shape == (4, 3)


def test_eight_devices_equal_one():
    one = nearest_class_mean(MODEL, NUM_CLASSES)
    eight = nearest_class_mean(MODEL, NUM_CLASSES, axis_name="batch")
    state = start(one)
    spread, metrics = problem.on_eight_devices(eight.step, state, BATCHES, None)
    _, wanted = jit(one.step)(state, FIRST, None)
    at_first = jax.tree.map(lambda x: x[0], metrics)
    problem.assert_trees_close(at_first, wanted, rtol=1e-4)
    assert spread.step == 2


def test_no_tau_is_chosen_by_features_that_are_not_finite():
    meta = DATA.meta._replace(inputs=DATA.meta.inputs.at[1, 0].set(jnp.nan))
    method = tau_normalised(MODEL, NUM_CLASSES)
    head = head_of(start(method, data=DATA.replace(meta=meta)))
    assert np.isnan(head["tau"])


@pytest.mark.parametrize("correct", [lambda x: adjust_logits(x, LENGTHS), ot_correction])
def test_a_correction_of_logits_that_are_not_finite(correct):
    logits = jnp.ones((4, NUM_CLASSES)).at[1, 0].set(jnp.nan)
    assert np.isnan(correct(logits)).any()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_class_means_of_half_precision_are_added_up_in_float32(dtype):
    model = identity_model(problem.LinearHead(1))
    inputs = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (8000, 5)), dtype)
    data = TrainingData(Examples(inputs, jnp.zeros(8000, jnp.int32)), None, 1)
    state = start(nearest_class_mean(model, 1), problem.make_variables(model), data)
    mean = np.float64(inputs).mean(0)
    np.testing.assert_allclose(
        head_of(state)["kernel"][:, 0], mean / np.linalg.norm(mean), rtol=1e-4
    )


@pytest.mark.parametrize("make", [tau_normalised, nearest_class_mean])
def test_another_number_of_classes_is_refused(make):
    with pytest.raises(ValueError, match="for 2 classes and the data have 3"):
        start(make(MODEL, 2))
