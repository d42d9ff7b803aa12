import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.models.backbones.pointnet import PointNet, SharedMLP


@pytest.fixture(scope="module")
def clouds():
    return np.random.default_rng(1).normal(size=(4, 20, 3)).astype(np.float32)


def _network(batch_norm=True, axis_name=None):
    return PointNet((6, 10), (8, 5), batch_norm, axis_name)


def _variables(network, clouds):
    """With biases and statistics that are not 0 and 1."""
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), clouds)
    rng = np.random.default_rng(0)

    def fill(path, x):
        values = rng.normal(0, 0.3, x.shape) + (path[-1].key in ("scale", "var"))
        return values.astype(np.float32)

    return jax.tree.map_with_path(fill, shapes)


def _plain(variables, clouds, train, batch_norm):
    def layers(x, part, count):
        for number in range(1, count + 1):
            dense = variables["params"][part][f"dense{number}"]
            x = x @ np.float64(dense["kernel"])
            if batch_norm:
                norm = variables["params"][part][f"norm{number}"]
                kept = variables["batch_stats"][part][f"norm{number}"]
                rows = x.reshape(-1, x.shape[-1])
                mean, var = (rows.mean(0), rows.var(0)) if train else (kept["mean"], kept["var"])
                x = (x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
            else:
                x = x + dense["bias"]
            x = np.maximum(x, 0)
        return x

    return layers(layers(np.float64(clouds), "shared", 2).max(axis=1), "hidden", 2)


@pytest.mark.parametrize(("train", "batch_norm"), [(False, True), (True, True), (True, False)])
def test_features_agree_with_a_plain_implementation(train, batch_norm, clouds):
    network = _network(batch_norm)
    variables = _variables(network, clouds)

    def features(variables, x):
        return network.apply(variables, x, train=train, mutable=["batch_stats"])[0]

    z = jax.jit(features)(variables, clouds)
    assert z.shape == (4, 5)
    np.testing.assert_allclose(
        z, _plain(variables, clouds, train, batch_norm), rtol=1e-3, atol=1e-4
    )


def test_neither_order_nor_repetition_of_points_matters(clouds):
    network = _network()
    variables = _variables(network, clouds)
    features = jax.jit(lambda x: network.apply(variables, x, train=False))
    shuffled = clouds[:, np.random.default_rng(2).permutation(20)]
    repeated = np.concatenate([clouds, clouds[:, :7]], axis=1)
    np.testing.assert_allclose(features(shuffled), features(clouds), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features(repeated), features(clouds), rtol=1e-5, atol=1e-6)


def test_default_sizes():
    network = PointNet()
    shapes = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=False),
        jnp.zeros((2, 30, 3)),
    )
    z, variables = shapes
    assert z.shape == (2, 256)
    sizes = [(3, 64), (64, 128), (128, 1024), (1024, 512), (512, 256)]
    by_hand = sum(d * w + 2 * w for d, w in sizes)  # Scale and bias of the normalisation.
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == by_hand == 798_784


@pytest.mark.parametrize("batch_norm", [False, True])
def test_start(batch_norm):
    layers = SharedMLP((300,), batch_norm)
    x = jnp.zeros((1, 200))
    kernel = layers.lazy_init(jax.random.key(0), x, train=False)["params"]["dense1"]["kernel"]
    if batch_norm:
        assert 0.99 / np.sqrt(200) < np.abs(kernel).max() <= 1 / np.sqrt(200)
        np.testing.assert_allclose(kernel.std(), 1 / np.sqrt(3 * 200), rtol=0.02)
    else:
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / 200), rtol=0.02)


def test_moments_are_taken_over_the_named_axis(clouds):
    network = _network(axis_name="batch")
    variables = _variables(network, clouds)

    def half(x):
        return network.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    z = jax.jit(jax.vmap(half, axis_name="batch"))(clouds.reshape(2, 2, 20, 3))
    np.testing.assert_allclose(
        z.reshape(4, -1), _plain(variables, clouds, True, True), rtol=1e-3, atol=1e-4
    )
