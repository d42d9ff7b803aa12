"""Adapters against their formulas in NumPy and gradient steps by hand; what they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.methods.erm import erm
from otrw_jax.methods.heads.adapters import adapted, disalign, disalign_weights, lws
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import CosineHead
from otrw_jax.models.model import flax_model, predict
from tests.methods import problem
from tests.methods.problem import MODEL, assert_trees_close, assert_trees_equal, jit

RATE = 0.3
DATA = problem.make_data()
BATCH = jax.tree.map(lambda x: x[0], problem.make_batches(DATA, 1))
VARIABLES = problem.make_variables()
NAMES = {
    "lws": {"scale"},
    "disalign": {"scale", "bias", "confidence_kernel", "confidence_bias"},
}
ADAPTERS = {"lws": lws(), "disalign": disalign()}


def make(adapter, model=MODEL, **options):
    return adapted(
        model,
        adapter,
        lambda model, trainable: erm(
            model, optax.sgd(RATE, momentum=0.9), trainable=trainable, batch_norm=False
        ),
        **options,
    )


def start(method, variables=VARIABLES):
    return method.init(jax.random.key(0), variables, DATA)


def of_head(method, state, x):
    z = problem.hand_features(VARIABLES["params"], x)
    return method.logits(state.variables["params"]["head"], z)


def with_head(state, **leaves):
    params = state.variables["params"]
    head = {**params["head"], **{k: jnp.asarray(v, jnp.float32) for k, v in leaves.items()}}
    return state.replace(variables={**state.variables, "params": {**params, "head": head}})


@pytest.mark.parametrize("name", ADAPTERS)
def test_starts_as_the_trained_head(name):
    method = make(ADAPTERS[name])
    state = start(method)
    before, head = VARIABLES["params"]["head"], state.variables["params"]["head"]
    assert set(head) == {"Dense_0"} | NAMES[name]
    assert_trees_equal(head["Dense_0"], before["Dense_0"])
    found = of_head(method, state, BATCH.inputs)
    np.testing.assert_allclose(found, predict(MODEL, VARIABLES, BATCH.inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ADAPTERS)
def test_trains_its_own_parameters_alone(name):
    method = make(ADAPTERS[name])
    state = start(method)
    trained = [x for x in jax.tree.leaves(state.opt_state) if x.ndim or name == "disalign"]
    assert len(trained) == len(NAMES[name])  # The momentum of each.
    step = jit(method.step)
    after = state
    for _ in range(3):
        after, metrics = step(after, BATCH, None)
    before, params = state.variables["params"], after.variables["params"]
    assert_trees_equal(params["backbone"], before["backbone"])
    assert_trees_equal(params["head"]["Dense_0"], before["head"]["Dense_0"])
    for leaf in NAMES[name]:
        assert (params["head"][leaf] != before["head"][leaf]).any(), leaf
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(after.variables))
    assert jnp.isfinite(metrics["loss"][0]) and after.step == 3


def test_lws_by_hand():
    """A step from other scales: the bias is scaled too."""
    method = make(lws())
    scale = np.array([0.5, 1.0, 3.0])
    state = with_head(start(method), scale=scale)
    plain = np.float64(predict(MODEL, VARIABLES, BATCH.inputs))
    np.testing.assert_allclose(
        of_head(method, state, BATCH.inputs), scale * plain, rtol=1e-4, atol=1e-5
    )
    after, _ = jit(method.step)(state, BATCH, None)
    p = np.exp(scale * plain)
    p = p / p.sum(1, keepdims=True) - np.eye(3)[BATCH.labels]
    wanted = scale - RATE * (p * plain).mean(0)
    head = after.variables["params"]["head"]
    np.testing.assert_allclose(head["scale"], wanted, rtol=1e-4, atol=1e-5)


def test_disalign_by_hand():
    method = make(disalign())
    rng = np.random.default_rng(5)
    s, b, v, c = rng.normal(size=3), rng.normal(size=3), rng.normal(size=8), 0.3
    state = with_head(start(method), scale=s, bias=b, confidence_kernel=v, confidence_bias=c)
    f = np.float64(problem.hand_features(VARIABLES["params"], BATCH.inputs))
    plain = np.float64(predict(MODEL, VARIABLES, BATCH.inputs))
    sigma = 1 / (1 + np.exp(-(f @ v + c)))[:, None]
    wanted = sigma * (s * plain + b) + (1 - sigma) * plain
    np.testing.assert_allclose(of_head(method, state, BATCH.inputs), wanted, rtol=1e-3, atol=1e-4)


def test_disalign_as_the_program_writes_it():
    """z + σ (s z + b) with s = 1 is the paper's formula with s = 2: the same classes are chosen."""
    method = make(disalign(scale=2.0))
    found = of_head(method, start(method), BATCH.inputs)
    f = np.float64(problem.hand_features(VARIABLES["params"], BATCH.inputs))
    plain = np.float64(predict(MODEL, VARIABLES, BATCH.inputs))
    sigma = 1 / (1 + np.exp(-0.1 * f.sum(1)))[:, None]
    np.testing.assert_allclose(found, (1 + sigma) * plain, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), plain.argmax(1))


def test_the_head_with_it():
    method = make(lws(), with_head=True)
    state = start(method)
    after, _ = jit(method.step)(state, BATCH, None)
    before, params = state.variables["params"], after.variables["params"]
    assert_trees_equal(params["backbone"], before["backbone"])
    # At scale one the head's own gradient is that of the network without a scale.
    gradient = problem.hand_gradient(
        VARIABLES["params"], BATCH.inputs, BATCH.labels, jnp.full((16,), 1 / 16)
    )["head"]["Dense_0"]
    wanted = jax.tree.map(lambda p, g: p - RATE * g, before["head"]["Dense_0"], gradient)
    assert_trees_close(params["head"]["Dense_0"], wanted)
    assert (params["head"]["scale"] != 1).any()


def test_a_cosine_head():
    model = flax_model(MLP((10, 8)), CosineHead(3))
    variables = problem.make_variables(model)
    method = make(disalign(), model)
    state = start(method, variables)
    head = state.variables["params"]["head"]
    assert head["confidence_kernel"].shape == (8,)
    z, _ = model.features(variables, BATCH.inputs, False)
    np.testing.assert_allclose(
        method.logits(head, z), predict(model, variables, BATCH.inputs), rtol=1e-5, atol=1e-6
    )


def test_abstract_values():
    for adapter in ADAPTERS.values():
        method = make(adapter)
        shapes = jax.eval_shape(lambda v, method=method: start(method, v), VARIABLES)
        state = start(method)
        assert jax.tree.structure(shapes) == jax.tree.structure(state)
        for shape, leaf in zip(jax.tree.leaves(shapes), jax.tree.leaves(state), strict=True):
            assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)


def test_an_adapter_on_an_adapter():
    adapted_once = start(make(lws())).variables
    with pytest.raises(ValueError, match=r"the head has \['scale'\] already"):
        start(make(disalign()), adapted_once)


def test_disalign_weights():
    counts = np.array([500, 0, 50, 5, 1])
    for rho in (0.0, 0.5, 1.2, 3.0):
        frequencies = counts[counts > 0] / counts.sum()
        wanted = np.zeros(5)
        wanted[counts > 0] = (1 / frequencies) ** rho
        wanted *= 5 / wanted.sum()
        np.testing.assert_allclose(disalign_weights(counts, rho), wanted, rtol=1e-5)
    for bad in ([0, 0], [1, -1], [1, np.nan]):
        with pytest.raises(ValueError, match="counts"):
            disalign_weights(np.array(bad))
