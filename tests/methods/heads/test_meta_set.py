"""Heads found on the meta set alone, against NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from otrw_jax.methods.heads import meta_set
from otrw_jax.methods.heads.meta_set import fit_logistic, meta_centroids, meta_logistic
from tests.methods import problem
from tests.methods.problem import MODEL, NUM_CLASSES, assert_trees_equal, jit

DATA = problem.make_data()
VARIABLES = problem.make_variables()
FIRST = jax.tree.map(lambda x: x[0], problem.make_batches(DATA, 1))
METHODS = {
    "centroids": meta_centroids(MODEL, NUM_CLASSES),
    "logistic": meta_logistic(MODEL, NUM_CLASSES, 0.3),
}


def start(method, data=DATA):
    return method.init(jax.random.key(0), VARIABLES, data)


def features(x):
    return np.float64(problem.hand_features(VARIABLES["params"], x))


def head_of(state):
    return state.variables["params"]["head"]


def test_centroids_by_hand():
    state = start(METHODS["centroids"])
    means = problem.class_means(features(DATA.meta.inputs), DATA.meta.labels)
    z = features(FIRST.inputs)
    logits = METHODS["centroids"].logits(head_of(state), jnp.asarray(z, jnp.float32))
    cosines = 1 - problem.hand_cost(z, FIRST.labels, means, np.arange(3), 1.0, 0.0)
    np.testing.assert_allclose(logits, cosines, rtol=1e-5, atol=1e-5)


def test_the_logistic_head_is_that_of_scikit_learn():
    state = start(METHODS["logistic"])
    z, y = features(DATA.meta.inputs), np.asarray(DATA.meta.labels)
    other = LogisticRegression(C=1 / 0.3, tol=1e-10, max_iter=10000).fit(z, y)
    head = head_of(state)
    assert np.abs(other.coef_).max() > 0.1
    np.testing.assert_allclose(head["kernel"], other.coef_.T, atol=1e-4)
    bias, wanted = np.float64(head["bias"]), other.intercept_
    np.testing.assert_allclose(bias - bias.mean(), wanted - wanted.mean(), atol=1e-3)
    z = features(FIRST.inputs)
    logits = METHODS["logistic"].logits(head, jnp.asarray(z, jnp.float32))
    p = jax.nn.softmax(logits)
    np.testing.assert_allclose(p, other.predict_proba(z), atol=1e-3)


def test_logits_of_a_few_examples_at_once_give_the_same_head(monkeypatch):
    rng = np.random.default_rng(3)
    z, labels = rng.normal(size=(20, 4)), rng.permutation(np.repeat(np.arange(4), 5))
    fitted = fit_logistic.__wrapped__
    at_once = jax.jit(lambda z: fitted(z, jnp.asarray(labels), 4, 0.3))(jnp.float32(z))
    for rows in (6, 10):  # With a rest and without.
        monkeypatch.setattr(meta_set, "ROWS", rows)
        found = jax.jit(lambda z: fitted(z, jnp.asarray(labels), 4, 0.3))(jnp.float32(z))
        for name, wanted in at_once.items():
            np.testing.assert_allclose(found[name], wanted, atol=2e-5)


def test_two_classes_and_more_features_than_examples():
    """Far from the origin; scikit-learn keeps one vector, the difference of the two."""
    rng = np.random.default_rng(5)
    y = np.arange(20) % 2
    z = np.float32(rng.normal(size=(20, 60)) + 10 + y[:, None] * rng.normal(size=(1, 60)))
    head = fit_logistic(z, y, 2, 4.0)
    other = LogisticRegression(C=2 / 4.0, tol=1e-10, max_iter=10000).fit(np.float64(z), y)
    difference = head["kernel"][:, 1] - head["kernel"][:, 0]
    np.testing.assert_allclose(difference, other.coef_[0], atol=1e-4)
    gap = np.float64(z) @ np.float64(difference) + float(head["bias"][1] - head["bias"][0])
    np.testing.assert_allclose(gap, other.decision_function(np.float64(z)), atol=2e-3)


@pytest.mark.parametrize("name", METHODS)
def test_steps_only_measure(name):
    method = METHODS[name]
    state = start(method)
    after, metrics = jit(method.step)(state, FIRST, DATA.meta)
    assert_trees_equal(after.variables, state.variables)
    assert_trees_equal(state.variables["params"]["backbone"], VARIABLES["params"]["backbone"])
    logits = method.logits(head_of(state), jnp.asarray(features(FIRST.inputs), jnp.float32))
    wrong = np.asarray(logits).argmax(1) != np.asarray(FIRST.labels)
    np.testing.assert_allclose(metrics["error"], (wrong.sum(), 16))


@pytest.mark.parametrize("name", METHODS)
def test_the_training_set_is_not_looked_at(name):
    other = DATA.replace(train=problem.make_examples((3, 1, 2), 9))
    assert_trees_equal(start(METHODS[name], other), start(METHODS[name]))
    shapes = jax.eval_shape(lambda data: start(METHODS[name], data), DATA)
    state = start(METHODS[name])
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(lambda x: x.shape, shapes)


@pytest.mark.parametrize("name", METHODS)
def test_errors(name):
    with pytest.raises(ValueError, match=rf"meta_{name} needs a meta set: take meta_per_class"):
        start(METHODS[name], DATA.replace(meta=None))
    meta = jax.tree.map(lambda x: x[DATA.meta.labels != 1], DATA.meta)
    with pytest.raises(ValueError, match=r"1 of 3 classes have no meta example: 1\."):
        start(METHODS[name], DATA.replace(meta=meta))
    with pytest.raises(ValueError, match="l2 is 0; it must be above 0"):
        meta_logistic(MODEL, NUM_CLASSES, 0)
