"""Of very many classes and examples no method forms an array of two of these numbers."""

import dataclasses
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.methods.base import Batch, Examples, TrainingData
from otrw_jax.methods.heads.closed_form import nearest_class_mean, tau_normalised
from otrw_jax.methods.heads.meta_set import meta_centroids, meta_logistic
from otrw_jax.methods.heads.oltr import oltr
from otrw_jax.methods.meta.metasaug import metasaug
from otrw_jax.methods.ot.reweight import ot_reweight
from otrw_jax.methods.ot.weight_net import ot_weight_net
from otrw_jax.methods.presets import PRESETS
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import flax_model
from otrw_jax.ot.nets import MLPWeightNet

EXAMPLES, CLASSES, META, DIM, BATCH = 40_009, 5_003, 10_006, 3, 7
MANY = (EXAMPLES, CLASSES, META)
MODEL, SGD = flax_model(MLP((4,)), LinearHead(CLASSES)), optax.sgd(0.1)
# What is formed of a part of the examples at once, by the closed form.
PART = 8192 * CLASSES


def ot(preset, **fields):
    config = dataclasses.replace(PRESETS[preset](CLASSES), **fields)
    return ot_reweight(MODEL, SGD, SGD, CLASSES, config)


METHODS = {
    "paper": lambda: ot("paper"),
    "global": lambda: ot("global"),
    "dynamic": lambda: ot("global", measure="dynamic", measure_size=1),
    "net": lambda: ot_weight_net(MODEL, SGD, MLPWeightNet(4), SGD, CLASSES),
    "metasaug": lambda: metasaug(MODEL, SGD, np.ones(CLASSES), 4, virtual_learning_rate=0.1),
    "oltr": lambda: oltr(MODEL, SGD, SGD, CLASSES),
    "tau": lambda: tau_normalised(MODEL, CLASSES),
    "ncm": lambda: nearest_class_mean(MODEL, CLASSES),
    "centroids": lambda: meta_centroids(MODEL, CLASSES),
    "logistic": lambda: meta_logistic(MODEL, CLASSES),
}


def examples(count):
    return Examples(
        jax.ShapeDtypeStruct((count, DIM), jnp.float32), jax.ShapeDtypeStruct((count,), jnp.int32)
    )


def arrays(jaxpr):
    """Shapes of everything that is computed."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in equation.outvars)
        for value in equation.params.values():
            for one in value if isinstance(value, tuple | list) else (value,):
                one = getattr(one, "jaxpr", one)
                if hasattr(one, "eqns"):
                    yield from arrays(one)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_grows_with_a_product_of_what_is_many(name):
    method = METHODS[name]()
    data = TrainingData(examples(EXAMPLES), examples(META), CLASSES)
    batch = Batch(*examples(BATCH), jax.ShapeDtypeStruct((BATCH,), jnp.int32))

    def begin_and_step(variables, data, batch):
        state = method.init(jax.random.key(0), variables, data)
        if method.refresh is not None:
            state = method.refresh(state, data)
        return method.step(state, batch, data.meta)

    variables = jax.eval_shape(MODEL.init, jax.random.key(0), batch.inputs)
    found = set(arrays(jax.make_jaxpr(begin_and_step)(variables, data, batch).jaxpr))
    assert any(CLASSES in shape for shape in found)
    assert not [shape for shape in found if sum(length in MANY for length in shape) > 1]
    assert max(map(prod, found)) <= PART
