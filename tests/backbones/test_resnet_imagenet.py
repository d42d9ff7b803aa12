"""ResNet-50: its size, its shapes, and one block spelled out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.backbones.heads import LinearHead
from otrw_jax.backbones.resnet_imagenet import ResNetImageNet
from otrw_jax.model import count_parameters, flax_model


@pytest.mark.parametrize(("depth", "count"), [(50, 25_557_032), (101, 44_549_160)])
def test_parameters_and_features(depth, count):
    """The counts are those of the published models with 1,000 classes."""
    model = flax_model(ResNetImageNet(depth), LinearHead(1000))
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert count_parameters(variables["params"]) == count
    z, _ = jax.eval_shape(lambda v, x: model.features(v, x, True), variables, images)
    assert z.shape == (2, 2048) and z.dtype == jnp.float32


def test_resolutions_of_the_stages():
    backbone = ResNetImageNet(50, width=4)
    x = jnp.zeros((1, 224, 224, 3))

    def shapes(x):
        variables = backbone.init(jax.random.key(0), x, False)
        _, kept = backbone.apply(variables, x, False, capture_intermediates=True)
        return kept["intermediates"]

    kept = jax.eval_shape(shapes, x)
    sides = [kept[f"stage{stage}_block1"]["__call__"][0].shape for stage in (1, 2, 3, 4)]
    assert sides == [(1, 56, 56, 16), (1, 28, 28, 32), (1, 14, 14, 64), (1, 7, 7, 128)]


def test_bfloat16_activations_give_float32_features_near_those_of_float32():
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    whole, half = (ResNetImageNet(50, width=4, dtype=d) for d in (jnp.float32, jnp.bfloat16))
    variables = jax.jit(lambda key: whole.init(key, images, False))(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    z, rounded = (
        jax.jit(lambda v, n=n: n.apply(v, images, False))(variables) for n in (whole, half)
    )
    assert rounded.dtype == jnp.float32
    error = np.linalg.norm(z - rounded) / np.linalg.norm(z)
    assert 1e-5 < error < 0.1


def test_unknown_depth():
    with pytest.raises(ValueError, match="depth is 18; choose one of 50, 101, 152"):
        ResNetImageNet(18).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)
