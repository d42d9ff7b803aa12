"""Heads: the cosine head against NumPy, its start, and what has no direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.losses import ldam
from otrw_jax.models.heads import CosineHead, LinearHead, kernel_of, unit
from tests.methods.problem import jit

Z = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
HEAD = CosineHead(3)
PARAMS = HEAD.init(jax.random.key(0), Z)["params"]


def test_cosines():
    kernel = np.random.default_rng(1).normal(size=(5, 3)) * [0.1, 1.0, 50.0]
    logits = HEAD.apply({"params": {"kernel": jnp.asarray(kernel, jnp.float32)}}, Z)
    lengths = np.outer(np.linalg.norm(Z, axis=1), np.linalg.norm(kernel, axis=0))
    np.testing.assert_allclose(logits, np.float64(Z) @ kernel / lengths, rtol=1e-5, atol=1e-6)


def test_start():
    """Directions of a uniform cube: length one, all signs, and no entry preferred."""
    assert list(PARAMS) == ["kernel"]
    assert PARAMS["kernel"].shape == (5, 3)
    kernel = np.asarray(CosineHead(2000).init(jax.random.key(1), Z)["params"]["kernel"])
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(kernel.mean(1), 0, atol=0.05)
    np.testing.assert_allclose((kernel**2).mean(1), 1 / 5, atol=0.02)
    # A ball's direction has fourth moments of 3 / (d (d + 2)); a cube's are smaller.
    drawn = np.random.default_rng(2).uniform(-1, 1, size=(5, 10**5))
    wanted = ((drawn / np.linalg.norm(drawn, axis=0)) ** 4).mean()
    np.testing.assert_allclose((kernel**4).mean(), wanted, rtol=0.03)


def test_zero_features_have_cosine_zero_and_a_finite_gradient():
    loss = ldam(np.array([9, 3, 1]))

    def objective(z, params):
        return loss(HEAD.apply({"params": params}, z), jnp.array([0, 1])).sum()

    z = jnp.stack([jnp.zeros(5), jnp.asarray(Z[0])])
    assert (HEAD.apply({"params": PARAMS}, z)[0] == 0).all()
    gradients = jit(jax.grad(objective, argnums=(0, 1)))(z, PARAMS)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert (gradients[0][0] == 0).all() and (gradients[0][1] != 0).any()


def test_class_vectors_of_a_head():
    linear = LinearHead(3).init(jax.random.key(0), Z)["params"]
    assert kernel_of(linear) is linear["Dense_0"]["kernel"]
    assert kernel_of(PARAMS) is PARAMS["kernel"]
    with pytest.raises(ValueError, match=r"the head has 2 kernels among .*Dense_0/bias"):
        kernel_of({**linear, "kernel": PARAMS["kernel"]})
    with pytest.raises(ValueError, match="the head has 0 kernels"):
        kernel_of({"bias": jnp.zeros(3)})


def test_a_feature_that_is_not_a_number_stays_one():
    z = jnp.asarray(Z).at[1, 0].set(jnp.nan)
    logits = HEAD.apply({"params": PARAMS}, z)
    np.testing.assert_array_equal(np.isnan(logits).all(axis=1), np.arange(len(Z)) == 1)
    np.testing.assert_array_equal(np.isnan(logits).any(axis=1), np.arange(len(Z)) == 1)
    assert (unit(jnp.zeros((2, 3)), axis=-1) == 0).all()
