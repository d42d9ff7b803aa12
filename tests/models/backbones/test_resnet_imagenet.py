"""ResNet-50: its size, its shapes, and one block spelled out."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from otrw_jax.models.backbones.resnet_imagenet import ResNetImageNet
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import count_parameters, flax_model


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


def test_bfloat16_is_of_the_activations_alone():
    backbone = ResNetImageNet(50, dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: backbone.init(jax.random.key(0), x, False), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    apply = partial(backbone.apply, train=False, capture_intermediates=True)
    z, kept = jax.eval_shape(apply, variables, x)
    assert z.dtype == jnp.float32
    (block,) = kept["intermediates"]["stage1_block1"]["__call__"]
    assert block.dtype == jnp.bfloat16


def test_unknown_depth():
    with pytest.raises(ValueError, match="depth is 18; choose one of 50, 101, 152"):
        ResNetImageNet(18).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)
