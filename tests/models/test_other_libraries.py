"""Networks of NNX and Equinox: their page's loops, their modes and their dropout."""

import pathlib
import re

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from otrw_jax.methods.erm import erm
from otrw_jax.methods.wrappers.averaging import averaged
from otrw_jax.models.model import flax_model, predict
from otrw_jax.models.other_libraries import equinox_model, nnx_model
from otrw_jax.training.checkpoints import Checkpoints
from tests.methods import problem
from tests.methods.problem import DIM, NUM_CLASSES, jit

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "other_networks.md"
WIDTH = 8
DATA = problem.make_data()
BATCH = problem.batch_of(DATA, range(16))


@pytest.mark.usefixtures("rank_promotion")
def test_the_pages_loops_train():
    first, second = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    scope = {}
    exec(first, scope)
    assert scope["error"] < 0.3
    assert scope["second"].variables["state"]["dropout"]["rngs"]["count"] == 2 * 50
    scope["error"] = None
    exec(second, scope)
    assert scope["error"] < 0.3
    assert isinstance(scope["second"].variables["params"]["backbone"], scope["Backbone"])


class LinenBackbone(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(WIDTH)(x))
        return nn.Dropout(self.rate, deterministic=not train)(x)


class NNXBackbone(nnx.Module):
    def __init__(self, rate, rngs):
        self.dense = nnx.Linear(DIM, WIDTH, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.dense(x)))


class EquinoxBackbone(eqx.Module):
    dense: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, rate, key):
        self.dense = eqx.nn.Linear(DIM, WIDTH, key=key)
        self.dropout = eqx.nn.Dropout(rate)

    def __call__(self, x, key=None):
        return self.dropout(self.dense(x), key=key)


KINDS = {
    "linen": lambda rate: flax_model(LinenBackbone(rate), nn.Dense(NUM_CLASSES), ("dropout",)),
    "nnx": lambda rate: nnx_model(
        lambda rngs: NNXBackbone(rate, rngs), lambda rngs: nnx.Linear(WIDTH, NUM_CLASSES, rngs=rngs)
    ),
    "equinox": lambda rate: equinox_model(
        lambda key: EquinoxBackbone(rate, key),
        lambda key: eqx.nn.Linear(WIDTH, NUM_CLASSES, key=key),
    ),
}


def zeros(model, variables, train):
    z, after = model.features(variables, BATCH.inputs, train)
    return np.asarray(z) == 0, {**variables, "state": after}


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_drawn_by_a_key_in_the_state(kind):
    model = KINDS[kind](0.5)
    variables = model.init(jax.random.key(0), BATCH.inputs)
    none, same = zeros(model, variables, False)
    assert not none.any() and jax.tree.all(
        jax.tree.map(lambda a, b: (a == b).all(), same, variables)
    )
    first, after = zeros(model, variables, True)
    again, _ = zeros(model, variables, True)
    second, _ = zeros(model, after, True)
    assert 0.3 < first.mean() < 0.7
    np.testing.assert_array_equal(again, first)
    assert (second != first).any() and (first[0] != first[1]).any()
    # The seed decides.
    other, _ = zeros(model, model.init(jax.random.key(1), BATCH.inputs), True)
    assert (other != first).any()


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_from_a_checkpoint_bit_for_bit(kind, tmp_path):
    model = KINDS[kind](0.5)
    method = averaged(erm(model, optax.sgd(0.1, momentum=0.9)), 0.9)
    step = jit(method.step)

    def start():
        return method.init(jax.random.key(0), model.init(jax.random.key(0), BATCH.inputs), DATA)

    state, metrics = step(start(), BATCH, None)
    assert np.isfinite(metrics["loss"][0])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        restored = checkpoints.restore(jax.eval_shape(start))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    ends = [
        jax.tree.leaves(step(one, BATCH, None)[0].variables["params"]) for one in (state, restored)
    ]
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)
    logits = predict(model, state.variables, BATCH.inputs)
    assert logits.shape == (16, NUM_CLASSES)


def test_batch_statistics_of_nnx_follow_the_training_passes():
    model = KINDS["nnx"](0.0)
    variables = model.init(jax.random.key(0), BATCH.inputs)
    assert set(variables["params"]["backbone"]) == {"dense", "norm"}
    z, state = model.features(variables, BATCH.inputs, True)
    np.testing.assert_allclose(z.mean(axis=0), np.zeros(WIDTH), atol=1e-5)
    layer = variables["params"]["backbone"]["dense"]
    hidden = BATCH.inputs @ layer["kernel"] + layer["bias"][None, :]
    np.testing.assert_allclose(
        state["norm"]["mean"], 0.1 * hidden.mean(axis=0), rtol=1e-4, atol=1e-6
    )


def test_what_the_models_do_not_take():
    with pytest.raises(ValueError, match=r"nnx_model: the head keeps .*mean.* belong to the backb"):
        nnx_model(lambda rngs: NNXBackbone(0.5, rngs), lambda rngs: nnx.BatchNorm(WIDTH, rngs=rngs))
    with pytest.raises(ValueError, match="equinox_model: BatchNorm keeps a state beside its param"):
        equinox_model(
            lambda key: eqx.nn.BatchNorm(WIDTH, "batch", mode="batch"),
            lambda key: eqx.nn.Linear(WIDTH, 2, key=key),
        )


def test_a_linen_model_without_random_numbers_is_as_it_was():
    plain = flax_model(LinenBackbone(0.0), nn.Dense(NUM_CLASSES))
    variables = plain.init(jax.random.key(0), BATCH.inputs)
    assert set(variables["state"]) == {"batch_stats"}
    with_key = KINDS["linen"](0.0).init(jax.random.key(0), BATCH.inputs)
    jax.tree.map(np.testing.assert_array_equal, with_key["params"], variables["params"])
    assert jnp.issubdtype(with_key["state"]["rngs"].dtype, jax.dtypes.prng_key)
