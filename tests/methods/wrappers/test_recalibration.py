"""Batch statistics taken anew on balanced batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.methods.wrappers.recalibration import recalibration
from tests.methods import problem
from tests.methods.problem import MODEL, assert_trees_equal, jit

DATA = problem.make_data()
FIRST = jax.tree.map(lambda x: x[0], problem.make_batches(DATA, 1))


def test_statistics_move_and_parameters_stay():
    model = problem.normed_model()
    method = recalibration(model, 3)
    variables = problem.make_variables(model)
    state = method.init(jax.random.key(0), variables, DATA)
    after, metrics = jit(method.step)(state, FIRST, None)
    assert_trees_equal(after.variables["params"], variables["params"])
    layer = variables["params"]["backbone"]["Dense_0"]
    wanted = 0.01 * (FIRST.inputs @ layer["kernel"] + layer["bias"][None, :]).mean(0)
    found = after.variables["state"]["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert metrics["loss"][1] == 16
    shares = jnp.bincount(DATA.train.labels, method.sampling(state, DATA.train.labels), length=3)
    np.testing.assert_allclose(shares / shares.sum(), 1 / 3, rtol=1e-5)


def test_a_network_without_statistics_is_refused():
    with pytest.raises(ValueError, match="keeps no batch statistics"):
        recalibration(MODEL, 3).init(jax.random.key(0), problem.make_variables(), DATA)
