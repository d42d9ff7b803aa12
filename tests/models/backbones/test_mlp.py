import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.models.backbones.mlp import MLP


@pytest.mark.parametrize("shape", [(3, 64), (3, 8, 8), (3, 8, 8, 1)])
def test_inputs_are_flattened(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    variables = MLP().init(jax.random.key(1), x, train=False)
    layers = jax.device_get(variables["params"])
    expected = x.reshape(3, 64)
    for name in ("Dense_0", "Dense_1"):
        expected = np.maximum(expected @ layers[name]["kernel"] + layers[name]["bias"], 0)
    features = MLP().apply(variables, x, train=True)
    assert features.shape == (3, 64)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_parameter_count():
    network = MLP(hidden=(7, 5))
    variables = jax.eval_shape(
        lambda x: network.init(jax.random.key(0), x, train=False), jnp.zeros((1, 8, 8))
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == (64 * 7 + 7) + (7 * 5 + 5)
