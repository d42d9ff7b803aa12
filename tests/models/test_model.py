import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import count_parameters, flax_model, identity_model, predict


class NormalisedLayer(nn.Module):
    """A backbone with batch statistics, and a use for both modes."""

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(4)(x))


class HeadWithState(nn.Module):
    @nn.compact
    def __call__(self, z):
        return nn.BatchNorm(use_running_average=True)(z)


@pytest.fixture
def inputs():
    return jnp.asarray(np.random.default_rng(0).normal(2, 1, (6, 3)), jnp.float32)


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_variables_have_the_documented_parts(inputs):
    model = flax_model(NormalisedLayer(), LinearHead(5))
    variables = model.init(jax.random.key(1), inputs)
    assert set(variables) == {"params", "state"}
    assert set(variables["params"]) == {"backbone", "head"}
    assert set(variables["state"]) == {"batch_stats"}
    assert count_parameters(variables["params"]["head"]) == 4 * 5 + 5
    assert count_parameters(variables["params"]["backbone"]) == (3 * 4 + 4) + 2 * 4


def test_the_state_changes_in_training_only(inputs):
    model = flax_model(NormalisedLayer(), LinearHead(5))
    variables = model.init(jax.random.key(1), inputs)
    z, state = model.features(variables, inputs, False)
    assert z.shape == (6, 4)
    assert_trees_equal(state, variables["state"])
    z, state = model.features(variables, inputs, True)
    np.testing.assert_allclose(z.mean(axis=0), np.zeros(4), atol=1e-5)
    hidden = inputs @ variables["params"]["backbone"]["Dense_0"]["kernel"]
    mean = state["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.1 * hidden.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_predictions_are_the_head_on_evaluation_features(inputs):
    model = flax_model(NormalisedLayer(), LinearHead(5))
    variables = model.init(jax.random.key(1), inputs)
    z, _ = model.features(variables, inputs, False)
    head = jax.device_get(variables["params"]["head"]["Dense_0"])
    expected = np.asarray(z) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(predict(model, variables, inputs), expected, rtol=1e-5, atol=1e-6)
    jitted = jax.jit(lambda v, x: predict(model, v, x))
    np.testing.assert_allclose(jitted(variables, inputs), expected, rtol=1e-5, atol=1e-6)


def test_a_backbone_without_state_has_an_empty_one(inputs):
    model = flax_model(MLP((4,)), LinearHead(2))
    variables = model.init(jax.random.key(0), inputs)
    assert variables["state"] == {}
    z, state = model.features(variables, inputs, True)
    assert z.shape == (6, 4)
    assert state == {}


def test_init_depends_on_the_key_and_not_on_the_inputs(inputs):
    model = flax_model(NormalisedLayer(), LinearHead(5))
    variables = model.init(jax.random.key(1), inputs)
    assert_trees_equal(variables, model.init(jax.random.key(1), jnp.zeros_like(inputs)))
    jitted = jax.jit(model.init)(jax.random.key(1), inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), jitted, variables)
    other = model.init(jax.random.key(2), inputs)["params"]["head"]["Dense_0"]["kernel"]
    assert not np.allclose(other, variables["params"]["head"]["Dense_0"]["kernel"])


def test_the_head_can_be_trained_alone(inputs):
    model = flax_model(NormalisedLayer(), LinearHead(5))
    variables = model.init(jax.random.key(1), inputs)
    z, _ = model.features(variables, inputs, False)
    gradient = jax.grad(lambda head: model.logits(head, z).sum())(variables["params"]["head"])
    np.testing.assert_allclose(gradient["Dense_0"]["bias"], np.full(5, 6.0))


def test_kept_features_give_the_same_logits(inputs):
    whole = flax_model(NormalisedLayer(), LinearHead(5))
    variables = whole.init(jax.random.key(1), inputs)
    z, _ = whole.features(variables, inputs, False)
    kept = identity_model(LinearHead(5))
    kept_variables = kept.init(jax.random.key(2), z)
    assert kept_variables["params"]["backbone"] == {}
    assert kept_variables["state"] == {}
    kept_variables["params"]["head"] = variables["params"]["head"]
    same, state = kept.features(kept_variables, z, True)
    np.testing.assert_array_equal(same, z)
    assert state == {}
    np.testing.assert_allclose(
        predict(kept, kept_variables, z), predict(whole, variables, inputs), rtol=1e-6
    )


@pytest.mark.parametrize("build", [identity_model, lambda head: flax_model(MLP((4,)), head)])
def test_a_head_with_a_state_is_an_error(build, inputs):
    with pytest.raises(ValueError, match="batch_stats"):
        build(HeadWithState()).init(jax.random.key(0), inputs)
