"""Parameters of any pytree give what the same numbers in a dict give, in every method."""

from typing import NamedTuple

import equinox as eqx
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from otrw_jax.methods.erm import erm
from otrw_jax.methods.wrappers.averaging import averaged
from otrw_jax.methods.wrappers.restart import with_fresh_head
from otrw_jax.models.heads import kernel_of
from otrw_jax.models.model import Model

from . import problem
from .every_method import METHODS, RATE, SGD
from .problem import DIM, jit

pytestmark = pytest.mark.usefixtures("rank_promotion")

WIDTH = 6
DATA = problem.make_data()
BATCHES = problem.make_batches(DATA, 2)
RNG = np.random.default_rng(5)
KERNELS = [jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((DIM, WIDTH), (WIDTH, 3))]
BIASES = [jnp.full(WIDTH, 0.5), jnp.asarray([0.1, -0.2, 0.3])]


@flax.struct.dataclass
class Layer:
    kernel: jax.Array
    bias: jax.Array


class Pair(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


def equinox_linear(kernel, bias):
    linear = eqx.nn.Linear(*kernel.shape, key=jax.random.key(0))
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), linear, (kernel.T, bias))


def nnx_state(kernel, bias):
    linear = nnx.Linear(*kernel.shape, rngs=nnx.Rngs(0))
    linear.kernel[...], linear.bias[...] = kernel, bias
    return nnx.split(linear)[1]


# Name to what makes parameters of a kernel and a bias, and what reads the two.
KINDS = {
    "dict": (
        lambda kernel, bias: {"Dense_0": {"kernel": kernel, "bias": bias}},
        lambda layers: (layers["Dense_0"]["kernel"], layers["Dense_0"]["bias"]),
    ),
    "tuple": (lambda kernel, bias: (kernel, bias), lambda layer: layer),
    "list": (lambda kernel, bias: [bias, kernel], lambda layer: layer[::-1]),
    "named tuple": (Pair, lambda layer: layer),
    "dataclass": (Layer, lambda layer: (layer.kernel, layer.bias)),
    "equinox": (equinox_linear, lambda layer: (layer.weight.T, layer.bias)),
    "nnx": (nnx_state, lambda layer: (layer["kernel"][...], layer["bias"][...])),
}


def network(backbone, head):
    """Parameters of two layers, of a kind each, and the model that reads them."""
    (make_backbone, read_backbone), (make_head, read_head) = KINDS[backbone], KINDS[head]
    params = {
        "backbone": make_backbone(KERNELS[0], BIASES[0]),
        "head": make_head(KERNELS[1], BIASES[1]),
    }

    def features(variables, x, train):
        del train
        kernel, bias = read_backbone(variables["params"]["backbone"])
        return jax.nn.relu(x @ kernel + bias[None, :]), variables["state"]

    def logits(head, z):
        kernel, bias = read_head(head)
        return z @ kernel + bias[None, :]

    return Model(lambda rng, inputs: None, features, logits), {"params": params, "state": {}}


def trained(name, backbone, head):
    """Logits of the training set after two steps, and their losses."""
    model, variables = network(backbone, head)
    method = METHODS[name](model)

    def steps(state):
        return jax.lax.scan(
            lambda state, batch: method.step(state, batch, DATA.meta), state, BATCHES
        )

    state, metrics = jit(steps)(method.init(jax.random.key(0), variables, DATA))
    z, _ = model.features(state.variables, DATA.train.inputs, False)
    logits = (method.logits or model.logits)(state.variables["params"]["head"], z)
    return state, logits, metrics["loss"][0]


@pytest.fixture(scope="module")
def of_dicts():
    return {}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("backbone", "head"), [("nnx", "equinox"), ("list", "nnx")])
def test_any_pytree_trains_like_a_dict(name, backbone, head, of_dicts):
    if name not in of_dicts:
        of_dicts[name] = trained(name, "dict", "dict")[1:]
    state, logits, losses = trained(name, backbone, head)
    np.testing.assert_allclose(logits, of_dicts[name][0], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(losses, of_dicts[name][1], rtol=1e-4)
    before = network(backbone, head)[1]["params"]["backbone"]
    after = state.variables["params"]["backbone"]
    assert jax.tree.structure(after) == jax.tree.structure(before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_of_a_head_of_any_kind(kind):
    np.testing.assert_array_equal(kernel_of(KINDS[kind][0](KERNELS[1], BIASES[1])), KERNELS[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimiser_is_given_the_tree_as_it_is(kind):
    """So that `optax.multi_transform` takes labels of the user's own tree."""
    model, variables = network(kind, kind)
    labels = {
        "backbone": "slow",
        "head": jax.tree.map(lambda _: "fast", variables["params"]["head"]),
    }
    rates = {"slow": optax.set_to_zero(), "fast": optax.sgd(RATE)}
    method = erm(model, optax.multi_transform(rates, labels))
    batch = jax.tree.map(lambda x: x[0], BATCHES)
    state = method.init(jax.random.key(0), variables, DATA)
    after = jit(method.step)(state, batch, None)[0].variables["params"]
    for part, moves in (("backbone", False), ("head", True)):
        pairs = zip(
            jax.tree.leaves(after[part]), jax.tree.leaves(variables["params"][part]), strict=True
        )
        assert all((new != old).any() == moves for new, old in pairs), part


def test_a_fresh_head_may_be_of_another_kind():
    model, variables = network("dict", "tuple")
    fresh = with_fresh_head(erm(model, SGD), lambda key: (KERNELS[1], BIASES[1]))
    state = fresh.init(jax.random.key(0), network("dict", "dict")[1], DATA)
    assert jax.tree.structure(state.variables["params"]) == jax.tree.structure(variables["params"])


def test_an_average_takes_counts_and_keys_as_they_are():
    model, variables = network("dict", "dict")
    key, count = jax.random.key(3), jnp.zeros((), jnp.uint32)

    def features(variables, x, train):
        z, state = model.features(variables, x, train)
        return z, {**state, "count": state["count"] + 1}

    variables = {**variables, "state": {"key": key, "count": count}}
    method = averaged(erm(model._replace(features=features), SGD), 0.9)
    batch = jax.tree.map(lambda x: x[0], BATCHES)
    state = jit(method.step)(method.init(jax.random.key(0), variables, DATA), batch, None)[0]
    assert state.variables["state"]["count"] == 1
    assert state.variables["state"]["count"].dtype == jnp.uint32
    assert state.variables["state"]["key"] == key
