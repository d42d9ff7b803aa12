"""EfficientNet-Lite0: its size, its shapes, its modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.models.backbones.efficientnet import EfficientNetLite0, standardised
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import count_parameters, flax_model


def test_parameters_and_features():
    """The count is that of the published model with 1,000 classes."""
    model = flax_model(EfficientNetLite0(), LinearHead(1000))
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert count_parameters(variables["params"]) == 4_652_008
    z, _ = jax.eval_shape(lambda v, x: model.features(v, x, True), variables, images)
    assert z.shape == (2, 1280) and z.dtype == jnp.float32


@pytest.mark.parametrize(("sides", "last"), [((224, 224), (7, 7)), ((128, 90), (4, 3))])
def test_resolutions_of_the_groups(sides, last):
    backbone = EfficientNetLite0()
    x = jnp.zeros((1, *sides, 3))

    def shapes(x):
        variables = backbone.init(jax.random.key(0), x, False)
        _, kept = backbone.apply(variables, x, False, capture_intermediates=True)
        return kept["intermediates"]

    kept = jax.eval_shape(shapes, x)
    halved = [-(-side // 2) for side in sides]
    assert kept["block1"]["__call__"][0].shape == (1, *halved, 16)
    assert kept["block16"]["__call__"][0].shape == (1, *last, 320)
    channels = [kept[f"block{i}"]["__call__"][0].shape[-1] for i in range(1, 17)]
    assert channels == [16, *[24] * 2, *[40] * 2, *[80] * 3, *[112] * 3, *[192] * 4, 320]


def test_bfloat16_is_of_the_activations_alone():
    backbone = EfficientNetLite0(dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: backbone.init(jax.random.key(0), x, False), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    def apply(variables, x):
        return backbone.apply(variables, x, False, capture_intermediates=True)

    z, kept = jax.eval_shape(apply, variables, x)
    assert z.dtype == jnp.float32
    blocks = [kept["intermediates"][f"block{i}"] for i in range(1, 17)]
    found = {leaf.dtype for leaf in jax.tree.leaves(blocks)}
    assert found == {jnp.dtype("bfloat16")}


def test_pixels():
    images = np.array([0, 127, 255], np.uint8).reshape(1, 1, 1, 3)
    found = standardised(images)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found[0, 0, 0], [-127 / 128, 0, 1])
