import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from otrw_jax.models.backbones.resnet_cifar import ResNetCifar
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import count_parameters, flax_model

SMALL = ResNetCifar(depth=8, width=4)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(1).normal(size=(5, 16, 16, 3)), jnp.float32)


@pytest.fixture(scope="module")
def variables(images):
    """Variables of the small network, with batch-norm values that are not 0 and 1."""
    shapes = jax.eval_shape(lambda x: SMALL.init(jax.random.key(1), x, train=False), images)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(x.dtype), shapes)
    positive = {"scale", "var"}

    def shift(path, x):
        return x + 1 if path[-1].key in positive else x

    return jax.tree.map_with_path(shift, variables)


@pytest.fixture(scope="module")
def apply():
    def apply(variables, x, train):
        return SMALL.apply(variables, x, train=train, mutable=["batch_stats"])

    return jax.jit(apply, static_argnames="train")


def plain_resnet(variables, x, train):
    """The depth-8 network written out with lax convolutions, one line a layer."""
    params, stats = variables["params"], variables["batch_stats"]

    def conv_norm(x, conv, norm, where, stride=1):
        weights, norm_stats = params, stats
        for name in where:
            weights, norm_stats = weights[name], norm_stats[name]
        x = lax.conv_general_dilated(
            x,
            weights[conv]["kernel"],
            (stride, stride),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        norm_stats = norm_stats[norm]
        mean, var = norm_stats["mean"], norm_stats["var"]
        if train:
            mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        scale = weights[norm]["scale"] / jnp.sqrt(var + 1e-5)
        shape = (1, 1, 1, -1)
        return (x - mean.reshape(shape)) * scale.reshape(shape) + weights[norm]["bias"].reshape(
            shape
        )

    x = jax.nn.relu(conv_norm(x, "conv", "norm", ()))
    for block, stride in [("stage1_block1", 1), ("stage2_block1", 2), ("stage3_block1", 2)]:
        y = jax.nn.relu(conv_norm(x, "conv1", "norm1", (block,), stride))
        y = conv_norm(y, "conv2", "norm2", (block,))
        if stride == 2:
            empty = jnp.zeros((*y.shape[:3], x.shape[-1] // 2))
            x = jnp.concatenate([empty, x[:, ::2, ::2], empty], axis=-1)
        x = jax.nn.relu(x + y)
    return x.mean(axis=(1, 2))


@pytest.mark.parametrize("train", [False, True])
def test_features_agree_with_a_plain_implementation(train, variables, images, apply):
    z, _ = apply(variables, images, train=train)
    assert z.shape == (5, 16)
    np.testing.assert_allclose(z, plain_resnet(variables, images, train), rtol=1e-4, atol=1e-5)


def test_jit_changes_nothing(variables, images, apply):
    z, _ = apply(variables, images, train=False)
    np.testing.assert_allclose(z, SMALL.apply(variables, images, train=False), rtol=1e-4, atol=1e-5)


def test_statistics_move_a_tenth_of_the_way_in_training_only(variables, images, apply):
    _, same = apply(variables, images, train=False)
    jax.tree.map(np.testing.assert_array_equal, same["batch_stats"], variables["batch_stats"])
    _, moved = apply(variables, images, train=True)
    kernel = variables["params"]["conv"]["kernel"]
    first = lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    before, after = variables["batch_stats"]["norm"], moved["batch_stats"]["norm"]
    expected_mean = 0.9 * before["mean"] + 0.1 * first.mean(axis=(0, 1, 2))
    expected_var = 0.9 * before["var"] + 0.1 * first.var(axis=(0, 1, 2))
    np.testing.assert_allclose(after["mean"], expected_mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after["var"], expected_var, rtol=1e-4, atol=1e-6)


def test_resnet_32_has_the_parameters_of_the_literature():
    model = flax_model(ResNetCifar(), LinearHead(10))
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    by_hand = 27 * 16 + 2 * 16
    for channels_in, channels in [(16, 16), (16, 32), (32, 64)]:
        by_hand += 9 * channels_in * channels + 9 * 9 * channels**2 + 10 * 2 * channels
    by_hand += 64 * 10 + 10
    assert count_parameters(variables["params"]) == by_hand == 464_154


def test_each_stage_has_its_shape():
    def stages(key, x):
        return ResNetCifar(depth=14).init_with_output(
            key, x, train=False, capture_intermediates=True, mutable=True
        )

    z, variables = jax.eval_shape(stages, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    seen = variables["intermediates"]
    assert seen["stage1_block2"]["__call__"][0].shape == (2, 32, 32, 16)
    assert seen["stage2_block2"]["__call__"][0].shape == (2, 16, 16, 32)
    assert seen["stage3_block2"]["__call__"][0].shape == (2, 8, 8, 64)
    assert "stage3_block3" not in seen
    assert z.shape == (2, 64)


def test_bfloat16_is_for_activations_only(variables, images):
    network = ResNetCifar(depth=8, width=4, dtype=jnp.bfloat16)
    run = jax.jit(lambda v, x: network.apply(v, x, train=True, mutable=["batch_stats"]))
    fresh = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
    z, state = run(variables, images)
    types = {leaf.dtype for leaf in jax.tree.leaves((fresh, z, state))}
    assert types == {jnp.dtype("float32")}
    exact = plain_resnet(variables, images, True)
    np.testing.assert_allclose(z, exact, rtol=0.1, atol=0.1)
    assert not np.allclose(z, exact, rtol=1e-5, atol=1e-6)


def test_moments_are_taken_over_the_named_axis(variables, images):
    """A batch in two halves over a named axis has the features of the whole batch."""
    network = ResNetCifar(depth=8, width=4, axis_name="batch")
    images = images[:4]

    def one(x):
        return network.apply(variables, x, train=True, mutable=["batch_stats"])

    halves = images.reshape(2, 2, *images.shape[1:])
    z, state = jax.jit(jax.vmap(one, axis_name="batch"))(halves)
    np.testing.assert_allclose(
        z.reshape(4, -1), plain_resnet(variables, images, True), rtol=1e-3, atol=1e-4
    )
    jax.tree.map(lambda x: np.testing.assert_allclose(x[0], x[1], rtol=1e-6), state)


def test_kaiming_normal_start():
    key = jax.random.key(0, impl="rbg")  # Its draws compile faster.
    variables = SMALL.lazy_init(key, jnp.zeros((1, 16, 16, 3)), train=False)
    kernel = variables["params"]["stage3_block1"]["conv2"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 16)), rtol=0.05)


@pytest.mark.parametrize("depth", [2, 18, 31])
def test_a_depth_that_is_not_6n_plus_2_is_an_error(depth):
    with pytest.raises(ValueError, match=r"6 n \+ 2"):
        ResNetCifar(depth=depth).lazy_init(
            jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
        )
