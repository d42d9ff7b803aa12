"""Labels of small types, of which more classes there are than the type holds, and of no class."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax import losses, metrics
from otrw_jax.classes import class_counts, class_ids, is_class, of_class
from otrw_jax.methods.base import Batch, Examples, TrainingData
from otrw_jax.methods.erm import erm, influence
from otrw_jax.methods.heads.oltr import oltr
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import flax_model
from otrw_jax.ot.weights import effective_number_example_weights

WEIGHTS = jnp.array([1.0, 2.0, 50.0])
SMALL = [(np.uint8, 256), (np.uint8, 300), (np.int8, 128), (np.int8, 200), (np.int16, 40_000)]


def labels_of(dtype, k):
    """Some of each part of what the type holds."""
    most = min(k, np.iinfo(dtype).max + 1)
    return np.arange(0, most, max(1, most // 50)).astype(dtype)


@pytest.mark.parametrize(("dtype", "k"), SMALL)
def test_every_label_is_of_its_class(dtype, k):
    labels = labels_of(dtype, k)
    values = jnp.arange(1, k + 1)
    for traced in (lambda f: f, jax.jit):
        assert traced(lambda x: is_class(x, k))(labels).all()
        np.testing.assert_array_equal(traced(lambda x: class_ids(x, k))(labels), labels)
        np.testing.assert_array_equal(
            traced(lambda x: class_counts(x, k))(labels), np.bincount(labels, minlength=k)
        )
        found = traced(lambda x: of_class(values, x))(labels)
        np.testing.assert_array_equal(found, np.int64(labels) + 1)


def test_labels_of_no_class_are_not_counted():
    labels = jnp.array([0, 2, 2, -1, 3, 255])
    for count in (class_counts, jax.jit(class_counts, static_argnums=1)):
        np.testing.assert_array_equal(count(labels, 3), [1, 0, 2])
        np.testing.assert_array_equal(count(labels.astype(jnp.uint8), 3), [1, 0, 2])
    np.testing.assert_array_equal(is_class(labels, 3), [1, 1, 1, 0, 0, 0])


def test_labels_of_no_class():
    labels = jnp.array([-1, 0, 2, 3, 7])
    np.testing.assert_array_equal(is_class(labels, 3), [False, True, True, False, False])
    np.testing.assert_array_equal(class_ids(labels, 3), [3, 0, 2, 3, 3])
    np.testing.assert_array_equal(class_counts(labels, 3), [1, 0, 1])
    np.testing.assert_array_equal(of_class(jnp.array([5.0, 6, 7]), labels), [0, 5, 7, 0, 0])


@pytest.mark.parametrize(("dtype", "k"), [(np.uint8, 300), (np.int8, 200)])
def test_what_is_computed_of_them_does_not_depend_on_the_type(dtype, k):
    labels = labels_of(dtype, k)
    logits = np.random.default_rng(0).normal(size=(len(labels), k)).astype(np.float32)
    z = jnp.asarray(logits[:, :4])
    factor = influence()
    functions = {
        "cross-entropy": lambda y: losses.cross_entropy(logits, y),
        "ldam": lambda y: losses.ldam(np.arange(1, k + 1))(logits, y),
        "influence": lambda y: factor(0, z, jnp.asarray(logits), jnp.asarray(y)),
        "effective number": lambda y: effective_number_example_weights(y, k, 0.9),
        "confusion": lambda y: metrics.confusion_matrix(logits.argmax(1), y, k),
    }
    for name, function in functions.items():
        found = function(labels), jax.jit(function)(labels)
        for one in found:
            np.testing.assert_allclose(one, function(np.int32(labels)), rtol=1e-6, err_msg=name)
        assert np.asarray(found[0]).any()


def test_a_step_trains_on_them():
    k = 256
    labels = jnp.arange(k)
    model = flax_model(MLP((4,)), LinearHead(k))
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(k, 3)), jnp.float32)
    method = erm(
        model, optax.sgd(0.1), class_weights=jnp.arange(1.0, k + 1), divide_by_weights=True
    )
    data = TrainingData(Examples(inputs, labels), None, k)
    state = method.init(jax.random.key(0), model.init(jax.random.key(0), inputs), data)
    step = jax.jit(method.step)
    wide, _ = step(state, Batch(inputs, labels, labels), None)
    small, _ = step(state, Batch(inputs, labels.astype(jnp.uint8), labels), None)
    for one, other in zip(*map(jax.tree.leaves, (wide.variables, small.variables)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda model, sgd: erm(model, sgd),
        lambda model, sgd: erm(model, sgd, class_weights=WEIGHTS),
        lambda model, sgd: erm(model, sgd, class_weights=WEIGHTS, divide_by_weights=True),
        lambda model, sgd: oltr(model, sgd, sgd, 3),
    ],
    ids=["erm", "class weights", "divided by weights", "oltr"],
)
def test_a_padded_batch_is_its_examples_alone(make):
    model = flax_model(MLP((4,)), LinearHead(3))
    inputs = jnp.asarray(np.random.default_rng(2).normal(size=(6, 3)), jnp.float32)
    labels = jnp.array([0, 1, 2, 0, -1, -1])
    method = make(model, optax.sgd(0.1))
    data = TrainingData(Examples(inputs[:4], labels[:4]), None, 3)
    state = method.init(jax.random.key(0), model.init(jax.random.key(0), inputs), data)
    step = jax.jit(method.step)
    padded, _ = step(state, Batch(inputs, labels, jnp.arange(6)), None)
    alone, _ = step(state, Batch(inputs[:4], labels[:4], jnp.arange(4)), None)
    for one, other in zip(*map(jax.tree.leaves, (padded.variables, alone.variables)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)
