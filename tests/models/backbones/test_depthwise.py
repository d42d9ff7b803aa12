"""The sum of shifted products is the grouped convolution."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.models.backbones.depthwise import DepthwiseConv

CHANNELS = 3


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("sides", [(8, 8), (7, 10), (2, 1)])
def test_it_is_the_grouped_convolution(sides, size, stride):
    grouped = nn.Conv(
        CHANNELS, (size, size), stride, "SAME", feature_group_count=CHANNELS, use_bias=False
    )
    ours = DepthwiseConv(size, stride)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *sides, CHANNELS)), jnp.float32)
    variables = ours.init(jax.random.key(0), x)
    wanted = jax.eval_shape(grouped.init, jax.random.key(0), x)
    assert jax.eval_shape(lambda: variables) == wanted
    np.testing.assert_allclose(
        ours.apply(variables, x), grouped.apply(variables, x), rtol=1e-5, atol=1e-5
    )


def test_the_type_is_that_asked_for():
    x = jnp.ones((1, 4, 4, CHANNELS))
    y, variables = DepthwiseConv(3, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].dtype == jnp.float32
