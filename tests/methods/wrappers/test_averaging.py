"""The moving average of the network beside a method's own training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax import PRESETS, ot_reweight
from otrw_jax.methods.erm import erm
from otrw_jax.methods.wrappers.averaging import averaged
from tests.methods import problem
from tests.methods.problem import MODEL, assert_trees_close, assert_trees_equal, jit

DATA = problem.make_data()
BATCHES = problem.make_batches(DATA, 4)


def test_the_average_follows_and_the_training_is_untouched():
    plain = erm(MODEL, optax.sgd(0.3, momentum=0.9))
    method = averaged(plain, 0.3)
    key, variables = jax.random.key(0), problem.make_variables()
    state, alone = method.init(key, variables, DATA), plain.init(key, variables, DATA)
    step, step_alone = jit(method.step), jit(plain.step)
    wanted = variables
    for i in range(4):
        batch = jax.tree.map(lambda x, i=i: x[i], BATCHES)
        state, _ = step(state, batch, None)
        alone, _ = step_alone(alone, batch, None)
        decay = min(0.3, (2 + i) / (11 + i))
        wanted = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, wanted, alone.variables)
    assert_trees_close(state.inner, alone)
    assert_trees_close(state.variables, wanted)
    assert state.step == 4


def test_what_the_inner_method_draws_and_refreshes():
    config = PRESETS["global"](3, sampling=True)
    inner = ot_reweight(MODEL, optax.sgd(0.1), optax.sgd(0.1), 3, config)
    method = averaged(inner, 0.9)
    state = method.init(jax.random.key(0), problem.make_variables(), DATA)
    np.testing.assert_array_equal(
        method.sampling(state, DATA.train.labels), state.inner.weights.values
    )
    assert_trees_equal(method.refresh(state, DATA).inner.weights.values, state.inner.weights.values)
    assert averaged(erm(MODEL, optax.sgd(0.1)), 0.9).refresh is None
    with pytest.raises(ValueError, match=r"decay is 1.0; it must be in \[0, 1\)"):
        averaged(inner, 1.0)
    assert jnp.ndim(state.step) == 0
