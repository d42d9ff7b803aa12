"""Labels of any integer type, networks in half precision, strict promotion: in every method."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.data.points import random_drop, random_scale_shift
from otrw_jax.methods.erm import erm
from otrw_jax.methods.meta.meta_loss import normalised
from otrw_jax.models.heads import CosineHead

from . import problem
from .every_method import METHODS
from .problem import MODEL, jit

pytestmark = pytest.mark.usefixtures("rank_promotion")

DATA = problem.make_data()
BATCH = problem.batch_of(DATA, range(16))
VARIABLES = problem.make_variables()


def half(tree):
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)


def small(examples):
    return examples._replace(labels=examples.labels.astype(jnp.uint8))


def in_half(examples):
    return small(examples)._replace(inputs=half(examples.inputs))


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_keeps_the_types_of_a_state(name):
    """So that steps may be scanned: with labels of a byte and a network in half precision."""
    method = METHODS[name](MODEL)
    data = DATA.replace(train=in_half(DATA.train), meta=in_half(DATA.meta))
    state = method.init(jax.random.key(0), half(VARIABLES), data)
    after, metrics = jax.eval_shape(method.step, state, in_half(BATCH), data.meta)
    assert types(after) == types(state)
    assert metrics["loss"][0].dtype == jnp.float32


# Not Adam, whose powers of its count mix types, nor what OT itself does with labels and costs.
@pytest.mark.parametrize(
    "name",
    sorted(set(METHODS) - {"erm", "hu", "paper", "released", "global", "net", "meta_logistic"}),
)
def test_types_are_not_mixed(name):
    with jax.numpy_dtype_promotion("strict"):
        method = METHODS[name](MODEL)
        data = DATA.replace(train=small(DATA.train), meta=small(DATA.meta))
        state = method.init(jax.random.key(0), VARIABLES, data)
        jax.eval_shape(method.step, state, small(BATCH), data.meta)
        if method.sampling is not None:
            jax.eval_shape(method.sampling, state, data.train.labels)


def test_what_is_drawn_is_of_the_type_of_the_inputs_where_float64_is_the_default():
    with jax.enable_x64(True):
        method = erm(MODEL, optax.sgd(0.1), mixup=1.0)
        state = method.init(jax.random.key(0), VARIABLES, DATA)
        after, metrics = jax.eval_shape(method.step, state, BATCH, None)
        assert types(after) == types(state)
        assert metrics["loss"][0].dtype == jnp.float32
        head = CosineHead(3).init(jax.random.key(0), jnp.ones((2, 4), jnp.float32))
        assert head["params"]["kernel"].dtype == jnp.float32
        clouds, keys = jnp.ones((2, 8, 3), jnp.float32), jax.random.split(jax.random.key(0), 2)
        for augment in (random_drop, random_scale_shift):
            assert jax.eval_shape(augment, keys, clouds).dtype == jnp.float32


def test_one_weight_that_is_not_a_number_makes_all_so():
    weights = jnp.array([0.2, jnp.nan, 0.4])
    assert np.isnan(normalised(weights, None)).all()
    np.testing.assert_array_equal(normalised(jnp.zeros(3), None), 0)


@pytest.mark.parametrize("name", ["lws", "ncm", "oltr"])
def test_a_nan_in_a_batch_reaches_the_loss(name):
    """The sentence that stops a training reads the loss of an epoch."""
    inputs = BATCH.inputs.at[2, 1].set(jnp.nan)
    method = METHODS[name](MODEL)
    state = method.init(jax.random.key(0), VARIABLES, DATA)
    _, metrics = jit(method.step)(state, BATCH._replace(inputs=inputs), DATA.meta)
    assert np.isnan(metrics["loss"][0])


def test_a_nan_in_the_training_set_stays_in_its_class_mean():
    train = DATA.train._replace(inputs=DATA.train.inputs.at[0].set(jnp.nan))
    state = METHODS["ncm"](MODEL).init(jax.random.key(0), VARIABLES, DATA.replace(train=train))
    kernel = state.variables["params"]["head"]["kernel"]
    np.testing.assert_array_equal(np.isnan(kernel).all(0), np.arange(3) == train.labels[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_keeps_the_types_of_a_state_where_float64_is_the_default(name, dtype):
    """Parameters that a method adds to those of the network are of the network's own type."""

    def in_type(tree):
        return jax.tree.map(lambda x: x.astype(dtype), tree)

    def of_long(examples):
        return examples._replace(
            inputs=in_type(examples.inputs), labels=examples.labels.astype(jnp.int64)
        )

    with jax.enable_x64(True):
        method = METHODS[name](MODEL)
        data = DATA.replace(train=of_long(DATA.train), meta=of_long(DATA.meta))
        batch = of_long(BATCH)._replace(ids=BATCH.ids.astype(jnp.int64))
        state = method.init(jax.random.key(0), in_type(VARIABLES), data)
        after, metrics = jax.eval_shape(method.step, state, batch, data.meta)
        assert types(after) == types(state)
        if method.refresh is not None:
            assert types(jax.eval_shape(method.refresh, state, data)) == types(state)
        network = {leaf.dtype for leaf in jax.tree.leaves(state.variables)}
        assert network == {jnp.dtype(dtype)}
        if dtype == "float32":
            assert jnp.dtype("float64") not in {leaf.dtype for leaf in jax.tree.leaves(state)}
            assert metrics["loss"][0].dtype == jnp.float32
