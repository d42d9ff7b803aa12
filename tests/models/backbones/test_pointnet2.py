import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.models.backbones.pointnet2 import PointNet2
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import count_parameters, flax_model

SIZES = {
    "points": (10, 4),
    "radii": (0.7, 1.4),
    "neighbours": (5, 6),
    "widths": ((4, 6), (8,), (7, 9)),
    "hidden": (8, 5),
}
SMALL = PointNet2(**SIZES)


@pytest.fixture(scope="module")
def clouds():
    """Four clouds of 24 points; the first has dropped points in the place of its first."""
    clouds = np.random.default_rng(1).normal(size=(4, 24, 3)).astype(np.float32)
    clouds[0, 8:] = clouds[0, :1]
    return clouds


def _variables(network, clouds):
    """With batch-norm values that are not 0 and 1."""
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), clouds)
    rng = np.random.default_rng(0)

    def fill(path, x):
        values = rng.normal(0, 0.3, x.shape) + (path[-1].key in ("scale", "var"))
        return values.astype(np.float32)

    return jax.tree.map_with_path(fill, shapes)


@pytest.fixture(scope="module")
def variables(clouds):
    return _variables(SMALL, clouds)


@pytest.fixture(scope="module")
def apply():
    def apply(variables, x, train):
        return SMALL.apply(variables, x, train=train, mutable=["batch_stats"])

    return jax.jit(apply, static_argnames="train")


def _plain_layers(variables, part, x, train):
    params, stats = variables["params"][part], variables["batch_stats"][part]
    for number in range(1, len(stats) + 1):
        x = x @ np.float64(params[f"dense{number}"]["kernel"])
        norm, kept = params[f"norm{number}"], stats[f"norm{number}"]
        rows = x.reshape(-1, x.shape[-1])
        mean, var = (rows.mean(0), rows.var(0)) if train else (kept["mean"], kept["var"])
        x = np.maximum((x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"], 0)
    return x


def _plain_level(cloud, features, count, radius, size):
    """Centres `[count 3]`, and what lies around each `[count size 3+d]`, point by point."""
    chosen = [0]
    while len(chosen) < count:
        to_chosen = [min(np.sum((p - cloud[c]) ** 2) for c in chosen) for p in cloud]
        chosen.append(int(np.argmax(to_chosen)))
    around = []
    for centre in cloud[chosen]:
        inside = [p for p in range(len(cloud)) if np.sum((cloud[p] - centre) ** 2) <= radius**2]
        ids = (inside + [inside[0]] * size)[:size]
        around.append(np.concatenate([cloud[ids] - centre, features[ids]], axis=-1))
    return cloud[chosen], np.stack(around)


def plain_pointnet2(variables, clouds, train):
    """The small network with farthest points searched anew at each level."""
    clouds = np.float64(clouds)
    features = np.zeros((*clouds.shape[:2], 0))
    for level in range(2):
        sizes = [SIZES[name][level] for name in ("points", "radii", "neighbours")]
        pairs = zip(clouds, features, strict=True)
        levels = [_plain_level(cloud, have, *sizes) for cloud, have in pairs]
        clouds, around = (np.stack(parts) for parts in zip(*levels, strict=True))
        features = _plain_layers(variables, f"level{level + 1}", around, train).max(axis=2)
    over_all = np.concatenate([clouds, features], axis=-1)
    x = _plain_layers(variables, "all", over_all, train).max(axis=1)
    return _plain_layers(variables, "hidden", x, train)


@pytest.mark.parametrize("train", [False, True])
def test_features_agree_with_a_plain_implementation(train, variables, clouds, apply):
    z, state = apply(variables, clouds, train=train)
    assert z.shape == (4, 5)
    np.testing.assert_allclose(z, plain_pointnet2(variables, clouds, train), rtol=1e-3, atol=1e-4)
    if not train:
        jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"])
        np.testing.assert_array_equal(apply(variables, clouds, train=False)[0], z)


def test_statistics_move_a_tenth_of_the_way(variables, clouds, apply):
    _, state = apply(variables, clouds, train=True)
    around = [_plain_level(c, np.zeros((24, 0)), 10, 0.7, 5)[1] for c in np.float64(clouds)]
    first = np.stack(around) @ variables["params"]["level1"]["dense1"]["kernel"]
    before = variables["batch_stats"]["level1"]["norm1"]
    after = state["batch_stats"]["level1"]["norm1"]
    for name, moment in (("mean", first.mean((0, 1, 2))), ("var", first.var((0, 1, 2)))):
        expected = 0.9 * before[name] + 0.1 * moment
        np.testing.assert_allclose(after[name], expected, rtol=1e-4, atol=1e-6)


def test_the_reference_architecture_less_the_biases_that_do_nothing():
    model = flax_model(PointNet2(), LinearHead(10))
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 512, 3)))
    layers = [(3, 64), (64, 64), (64, 128), (131, 128), (128, 128), (128, 256)]
    layers += [(259, 256), (256, 512), (512, 1024), (1024, 512), (512, 256)]
    biases = sum(width for _, width in layers)
    reference = sum(d * width + 3 * width for d, width in layers) + 256 * 10 + 10
    assert reference == 1_467_978
    assert count_parameters(variables["params"]) == reference - biases == 1_464_650


def test_each_level_has_its_shape():
    def levels(key, x):
        return PointNet2().init_with_output(
            key, x, train=False, capture_intermediates=True, mutable=True
        )

    z, variables = jax.eval_shape(levels, jax.random.key(0), jnp.zeros((2, 512, 3)))
    seen = variables["intermediates"]
    assert seen["level1"]["__call__"][0].shape == (2, 512, 32, 128)
    assert seen["level2"]["__call__"][0].shape == (2, 128, 64, 256)
    assert seen["all"]["__call__"][0].shape == (2, 128, 1024)
    assert z.shape == (2, 256)


def test_order_matters_only_in_the_first_point_where_no_ball_overflows(variables, clouds):
    network = PointNet2(**{**SIZES, "neighbours": (24, 10)})
    features = jax.jit(lambda x: network.apply(variables, x, train=False))
    rest = 1 + np.random.default_rng(2).permutation(23)
    shuffled = clouds[:, np.concatenate([[0], rest])]
    np.testing.assert_allclose(features(shuffled), features(clouds), rtol=1e-4, atol=1e-5)
    assert not np.allclose(features(clouds[:, ::-1]), features(clouds), rtol=1e-3, atol=1e-4)


def test_two_devices_are_one(clouds):
    """Features, statistics, and the gradient of a loss over the whole batch."""
    sizes = {**SIZES, "widths": ((4,), (6,), (7,)), "hidden": (5,)}
    variables = _variables(PointNet2(**sizes), clouds)
    target = np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)

    def gradient_of(axis_name):
        network = PointNet2(**sizes, axis_name=axis_name)

        def loss(params, x, target):
            z, state = network.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.sum((z - target) ** 2), (z, state)

        return jax.grad(loss, has_aux=True)

    def part(params, x, target):
        gradient, (z, state) = gradient_of("batch")(params, x, target)
        return jax.lax.psum(gradient, "batch"), state, z

    spread = jax.pmap(part, "batch", in_axes=(None, 0, 0), devices=jax.devices()[:2])
    params, halves = variables["params"], (clouds.reshape(2, 2, 24, 3), target.reshape(2, 2, 5))
    *shared, z = jax.device_get(spread(params, *halves))
    gradient, (alone, state) = jax.jit(gradient_of(None))(params, clouds, target)
    np.testing.assert_allclose(z.reshape(4, 5), alone, rtol=1e-3, atol=1e-4)
    for device in range(2):
        here = jax.tree.map(lambda x, device=device: x[device], shared)
        same = jax.tree.map(lambda x, y: np.allclose(x, y, 2e-3, 2e-3), here, [gradient, state])
        assert all(jax.tree.leaves(same)), same
    leaves = jax.device_get(jax.tree.leaves(gradient))
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in leaves)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radii": (0.7,)}, "are of 2, 1, 2 and 3 levels"),
        ({"widths": ((4,), (8,))}, "are of 2, 2, 2 and 2 levels"),
        ({"points": (), "radii": (), "neighbours": (), "widths": ((4,),)}, "1 or more"),
        ({"points": (4, 10)}, r"points is \(4, 10\); they must not grow"),
        ({"points": (25, 4)}, "count is 25 for clouds of 24 points"),
        ({"neighbours": (5, 11)}, "size is 11 for clouds of 10 points"),
    ],
)
def test_sizes_that_do_not_fit_are_errors(change, message, clouds):
    network = PointNet2(**{**SIZES, **change})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), clouds)
