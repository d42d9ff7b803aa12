"""Weight nets: their mathematics in NumPy, and what holds for any input."""

import functools

import jax
import numpy as np
import pytest
from scipy.special import softmax

from otrw_jax.ot.nets import AttentionWeightNet, MLPWeightNet

NETS = {
    "mlp": MLPWeightNet(6),
    "rows": AttentionWeightNet(6),
    "diagonal": AttentionWeightNet(6, "diagonal"),
}
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(9, 5)).astype(np.float32)
INPUTS = {
    "features": FEATURES,
    "large features": 1e3 * FEATURES,
    "labels": np.eye(3, dtype=np.float32)[RNG.integers(0, 3, 9)],
    "losses": RNG.exponential(size=(9, 1)).astype(np.float32),
    "one example": FEATURES[:1],
    "zeros": np.zeros((4, 5), np.float32),
}


jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
APPLY = {name: jit(net.apply) for name, net in NETS.items()}


def params_of(name, x):
    """Random, biases too."""
    shapes = jax.eval_shape(NETS[name].init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), shapes)


def by_hand(name, params, x):
    layers = [jax.tree.map(np.float64, params[f"Dense_{i}"]) for i in range(2)]
    first = x @ layers[0]["kernel"] + layers[0]["bias"]
    if name == "mlp":
        return softmax(np.tanh(first) @ layers[1]["kernel"][:, 0])
    scores = first @ (x @ layers[1]["kernel"] + layers[1]["bias"]).T / np.sqrt(6)
    if name == "diagonal":
        return softmax(np.diag(scores))
    return np.mean([softmax(row) for row in scores], axis=0)


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("name", NETS)
def test_by_hand_on_the_simplex(name, given):
    x = INPUTS[given]
    params = params_of(name, x)
    weights = APPLY[name]({"params": params}, x)
    assert weights.shape == (len(x),) and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
    if given != "large features":  # Where float32 scores of thousands decide.
        np.testing.assert_allclose(weights, by_hand(name, params, np.float64(x)), rtol=2e-4)


@pytest.mark.parametrize("name", NETS)
def test_the_order_of_a_batch_is_that_of_its_weights(name):
    order = np.random.default_rng(2).permutation(9)
    params = params_of(name, FEATURES)
    weights = APPLY[name]({"params": params}, FEATURES)
    shuffled = APPLY[name]({"params": params}, FEATURES[order])
    np.testing.assert_allclose(shuffled, weights[order], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", NETS)
def test_gradient(name):
    """Finite differences in float64; a constant slope moves nothing."""
    params = params_of(name, FEATURES)
    slope = np.random.default_rng(3).normal(size=9)

    def weights_of(params):
        return NETS[name].apply({"params": params}, FEATURES)

    @jit
    def pullback(slope):
        return jax.vjp(weights_of, params)[1](slope)[0]

    found = pullback(np.float32(slope))
    leaves, tree = jax.tree.flatten(jax.tree.map(np.float64, params))
    for number, leaf in enumerate(jax.tree.leaves(found)):
        direction = np.random.default_rng(number).normal(size=leaf.shape)
        ends = []
        for sign in (1, -1):
            moved = list(leaves)
            moved[number] = leaves[number] + sign * 1e-6 * direction
            ends.append(slope @ by_hand(name, tree.unflatten(moved), np.float64(FEATURES)))
        wanted = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(np.sum(leaf * direction), wanted, rtol=1e-3, atol=1e-5)
    still = pullback(np.ones(9, np.float32))
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(still)) < 1e-5


def test_the_start():
    """Kernels fill ±1/√inputs, biases are zero, and weights of ordinary features are alike."""
    x = RNG.normal(size=(50, 64)).astype(np.float32)
    for net, outputs in ((MLPWeightNet(), (128, 1)), (AttentionWeightNet(), (128, 128))):
        params = jit(net.init)(jax.random.key(1), x)["params"]
        inputs = (64, 128) if outputs[1] == 1 else (64, 64)
        for number in range(2):
            layer, bound = params[f"Dense_{number}"], inputs[number] ** -0.5
            assert layer["kernel"].shape == (inputs[number], outputs[number])
            assert 0.9 * bound < np.abs(np.asarray(layer["kernel"])).max() <= bound
            assert not np.asarray(layer.get("bias", 0.0)).any()
        weights = jit(net.apply)({"params": params}, x)
        assert weights.min() > 0.2 / 50 and weights.max() < 5 / 50


def test_an_unknown_reading():
    with pytest.raises(ValueError, match="pooling is 'columns'; choose 'rows' or 'diagonal'"):
        AttentionWeightNet(pooling="columns").init(jax.random.key(0), FEATURES)
