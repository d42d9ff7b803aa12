"""Corrections after training, against NumPy: formulas, marginals, and what is extreme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax

from otrw_jax.losses import cross_entropy, logit_adjusted
from otrw_jax.posthoc import adjust_logits, ot_correction
from tests.methods.problem import jit

COUNTS = np.array([60, 25, 10, 5])
correct = jit(ot_correction, static_argnames=("marginal", "epsilon", "iterations"))

LOGITS = np.random.default_rng(0).normal(size=(200, 4)) * 2 + np.log(COUNTS / 100)


def as_float(x):
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize("tau", [0.0, 1.0, 2.5])
def test_logit_adjustment_by_hand(tau):
    wanted = LOGITS - tau * np.log(COUNTS / 100)
    np.testing.assert_allclose(
        adjust_logits(as_float(LOGITS), COUNTS, tau), wanted, rtol=1e-5, atol=1e-6
    )


def test_logit_adjustment_undoes_the_adjusted_loss():
    """Trained with log π added or corrected by it afterwards: the same loss of the sum."""
    labels = jnp.arange(200) % 4
    adjusted = adjust_logits(as_float(LOGITS), COUNTS)
    np.testing.assert_allclose(
        logit_adjusted(COUNTS)(adjusted, labels),
        cross_entropy(as_float(LOGITS), labels),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_class_without_examples_counts_as_one_with_one():
    found = adjust_logits(as_float(LOGITS), np.array([60, 25, 0, 5]))
    assert jnp.isfinite(found).all()
    np.testing.assert_allclose(found[:, 2] - LOGITS[:, 2], np.log(90), rtol=1e-4)
    for bad in ([0, 0], [1, -1], [1, np.inf]):
        with pytest.raises(ValueError, match="counts"):
            adjust_logits(jnp.zeros((2, 2)), np.array(bad))


def plain_sinkhorn(cost, mass, epsilon, iterations=20000):
    """The plan, in float64."""
    n = len(cost)
    f, g = np.zeros(n), np.zeros(len(mass))
    with np.errstate(divide="ignore"):
        log_mass = np.log(mass)
    for _ in range(iterations):
        f = -epsilon * (np.log(n) + logsumexp((g - cost) / epsilon, axis=1))
        g = epsilon * (log_mass - logsumexp((f[:, None] - cost) / epsilon, axis=0))
        plan = np.exp((f[:, None] + g - cost) / epsilon)
        if np.abs(plan.sum(1) - 1 / n).sum() < 1e-13:
            break
    return plan


@pytest.mark.parametrize(
    ("marginal", "epsilon"), [(None, 1.0), ((1, 2, 3, 4), 0.3), ((2, 0, 1, 1), 1.0)]
)
def test_transport_by_hand(marginal, epsilon):
    found = correct(as_float(LOGITS), marginal, epsilon=epsilon)
    mass = np.ones(4) if marginal is None else np.array(marginal, float)
    mass /= mass.sum()
    plan = plain_sinkhorn(-log_softmax(LOGITS, axis=1), mass, epsilon)
    rows = np.exp(np.float64(found))
    np.testing.assert_allclose(rows / 200, plan, atol=2e-6)
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(rows.mean(0), mass, atol=1e-4)
    assert jnp.isfinite(found).all()
    if marginal is not None and 0 in marginal:
        assert not (found.argmax(1) == 1).any()


def test_small_epsilon_assigns_equal_shares():
    found = correct(as_float(LOGITS), epsilon=0.02, iterations=5000)
    shares = np.bincount(np.argmax(found, axis=1), minlength=4)
    before = np.bincount(LOGITS.argmax(1), minlength=4)
    assert before.max() > 100 and np.abs(shares - 50).max() <= 2


def test_of_true_posteriors_it_is_bayes_rule_without_the_class_frequencies():
    """Gaussian classes, balanced examples, logits that know the imbalanced prior."""
    rng = np.random.default_rng(1)
    means, labels = rng.normal(size=(4, 3)), np.repeat(np.arange(4), 1000)
    x = means[labels] + rng.normal(size=(4000, 3))
    logits = x @ means.T - (means**2).sum(1) / 2 + np.log(COUNTS / 100)
    found = np.exp(correct(as_float(logits)))
    wanted = softmax(adjust_logits(as_float(logits), COUNTS), axis=1)
    offsets = np.log(found / wanted)
    assert np.abs(offsets - offsets.mean(1, keepdims=True)).max() < 0.15
    assert np.abs(found - wanted).mean() < 0.01
    errors = [np.mean(z.argmax(1) != labels) for z in (logits, found, wanted)]
    assert errors[1] < errors[0] - 0.05 and abs(errors[1] - errors[2]) < 0.01


def test_extreme_logits():
    """Sure predictions, certain ones, classes ruled out: finite, and rows still sum to one."""
    ruled_out = np.where(np.eye(4, dtype=bool)[np.arange(200) % 3], 0, -np.inf)
    for logits in (1e4 * LOGITS, 1e30 * np.sign(LOGITS), ruled_out):
        for options in ({"epsilon": 1.0}, {"epsilon": 0.02, "iterations": 5000}):
            found = correct(as_float(logits), **options)
            assert jnp.isfinite(found).all()
            np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-4)


def test_what_nothing_tells_apart_has_the_marginal():
    found = np.exp(correct(jnp.zeros((200, 4)), (1, 2, 3, 4), epsilon=0.3))
    np.testing.assert_allclose(found, np.tile([0.1, 0.2, 0.3, 0.4], (200, 1)), rtol=1e-4)


def test_bad_arguments():
    logits = as_float(LOGITS)
    for marginal in ((1, 1), (1, 1, 1, -1), (0, 0, 0, 0), (1, 1, 1, np.nan)):
        with pytest.raises(ValueError, match=r"marginal|counts"):
            ot_correction(logits, marginal)
    with pytest.raises(ValueError, match="epsilon is 0"):
        ot_correction(logits, epsilon=0.0)
    with pytest.raises(ValueError, match="iterations is 0"):
        ot_correction(logits, iterations=0)


def test_proportions_give_what_their_counts_give():
    found = adjust_logits(jnp.zeros((1, 3)), np.array([0.9, 0.09, 0.01]))
    np.testing.assert_allclose(found[0], [0.10536, 2.40795, 4.60517], rtol=1e-5)
    with pytest.raises(ValueError, match=r"adjust_logits: counts is .* of proportions"):
        adjust_logits(jnp.zeros((1, 3)), np.array([0.9, 0.1, 0.0]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_corrected_in_float32_and_cast_back(dtype):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), dtype)
    wide = logits.astype(jnp.float32)
    for correct in (lambda z: adjust_logits(z, np.array([9, 2, 1])), ot_correction):
        found = correct(logits)
        assert found.dtype == logits.dtype
        np.testing.assert_array_equal(found, correct(wide).astype(dtype))
    with jax.numpy_dtype_promotion("strict"):
        adjust_logits(logits, np.array([9, 2, 1]))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda z: adjust_logits(z, np.array([1, 2, 3]), np.nan), "adjust_logits: tau is nan"),
        (
            lambda z: adjust_logits(z, np.array([1])),
            r"logits has shape \(4, 3\); it must be \(any, 1\)",
        ),
        (lambda z: ot_correction(z, epsilon=np.inf), "ot_correction: epsilon is inf"),
        (lambda z: ot_correction(z[0]), r"logits has shape \(3,\); it must be \(any, any\)"),
        (lambda z: ot_correction(z, [1, 1]), r"marginal has shape \(2,\); it must be \(3,\)"),
    ],
)
@pytest.mark.usefixtures("signatures_unchecked")
def test_what_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make(jnp.zeros((4, 3)))
