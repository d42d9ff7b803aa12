"""Settings, states and compiled steps that the tests of Algorithm 1 share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.methods.ot.reweight import ot_reweight
from otrw_jax.ot.entropic import EntropicOT
from tests.methods import problem
from tests.methods.problem import MODEL, NUM_CLASSES, jit

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
