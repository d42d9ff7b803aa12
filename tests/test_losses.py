from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from otrw_jax.losses import (
    balanced_softmax,
    cross_entropy,
    effective_number_weights,
    focal,
    inverse_frequency_weights,
    label_aware_smoothing,
    ldam,
    logit_adjusted,
    smoothed,
)


def reference_weights(counts, beta):
    with localcontext(prec=60):
        beta = Decimal(beta)
        raw = [(1 - beta) / (1 - beta**n) if n else Decimal(0) for n in counts]
        return np.array([float(w * len(counts) / sum(raw)) for w in raw])


def test_cross_entropy_is_the_negative_log_probability_of_the_label():
    rng = np.random.default_rng(0)
    logits = 10 * rng.normal(size=(6, 4)).astype(np.float32)
    labels = rng.integers(0, 4, size=6)
    expected = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(6), labels]
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(cross_entropy)(logits, labels), expected, 1e-5, 1e-6)


def test_cross_entropy_is_finite_for_extreme_logits():
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([0, 0])), [0, 2e4])


@pytest.mark.parametrize("labels", [np.zeros(1, int), np.zeros((3, 1), int), np.zeros(4, int)])
@pytest.mark.usefixtures("signatures_unchecked")
def test_cross_entropy_refuses_labels_that_would_broadcast(labels):
    with pytest.raises(ValueError, match=r"cross_entropy: labels has shape .*; it must be \(3,\)"):
        cross_entropy(jnp.zeros((3, 2)), labels)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.sampled_from([0, 1, 2, 7, 100, 4990, 10**6]), min_size=5, max_size=5),
    beta=st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.9999, 1 - 1e-6, 1 - 1e-9]),
)
def test_weights_agree_with_sixty_digits(counts, beta):
    if not any(counts):
        return
    weights = effective_number_weights(np.array(counts), beta)
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(weights, reference_weights(counts, beta), rtol=2e-6)


def test_weights_of_long_tailed_cifar_10():
    counts = [4990, 2991, 1793, 1074, 644, 386, 231, 138, 83, 49]
    weights = effective_number_weights(jnp.array(counts))
    np.testing.assert_array_equal(effective_number_weights(np.array(counts)), weights)
    np.testing.assert_allclose(weights, reference_weights(counts, 0.9999), rtol=1e-6)
    np.testing.assert_allclose(weights.sum(), 10, rtol=1e-6)
    assert (np.diff(weights) > 0).all()


def test_beta_zero_weights_all_classes_alike():
    np.testing.assert_allclose(effective_number_weights(np.array([1, 20, 300]), 0.0), np.ones(3))


def test_an_absent_class_has_weight_zero_and_the_others_share_k():
    weights = effective_number_weights(np.array([5, 0, 5, 5]))
    np.testing.assert_allclose(weights, [4 / 3, 0, 4 / 3, 4 / 3], rtol=1e-6)


def test_weights_are_the_same_under_jit():
    counts = jnp.array([1, 0, 10, 1000])
    jitted = jax.jit(effective_number_weights)
    np.testing.assert_allclose(jitted(counts), effective_number_weights(counts), rtol=1e-6)


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5, float("nan")])
def test_beta_outside_its_range_is_an_error(beta):
    with pytest.raises(ValueError, match="beta"):
        effective_number_weights(np.array([1, 2]), beta)


@pytest.mark.parametrize("counts", [[1, -2], [1.0, np.nan], [1.0, np.inf], [0, 0]])
def test_impossible_counts_are_an_error(counts):
    with pytest.raises(ValueError, match="counts"):
        effective_number_weights(np.array(counts))


COUNTS = np.array([500, 50, 7, 1])


def random_logits(scale=3.0):
    rng = np.random.default_rng(1)
    logits = scale * rng.normal(size=(8, 4))
    return logits, jnp.asarray(logits, jnp.float32), rng.integers(0, 4, 8)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_by_hand(gamma):
    exact, logits, labels = random_logits()
    log_p = log_softmax(exact, axis=1)[np.arange(8), labels]
    wanted = -((1 - np.exp(log_p)) ** gamma) * log_p
    np.testing.assert_allclose(focal(gamma)(logits, labels), wanted, rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_has_a_finite_gradient_where_the_label_is_certain(gamma):
    logits = jnp.array([[60.0, -60.0], [-60.0, 60.0]])
    gradient = jax.grad(lambda z: focal(gamma)(z, jnp.array([0, 0])).sum())(logits)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[0], 0.0, atol=1e-6)


def test_focal_refuses_a_negative_gamma():
    with pytest.raises(ValueError, match=r"focal: gamma is -1.0; it must be 0 or more"):
        focal(-1.0)


@pytest.mark.parametrize("tau", [0.0, 1.0, 1.5])
def test_logit_adjustment_by_hand(tau):
    exact, logits, labels = random_logits()
    shifted = exact + tau * np.log(COUNTS / COUNTS.sum())
    wanted = -log_softmax(shifted, axis=1)[np.arange(8), labels]
    np.testing.assert_allclose(logit_adjusted(COUNTS, tau)(logits, labels), wanted, rtol=1e-4)
    if tau == 1:
        # Ren et al. write n_y e^z_y / sum_c n_c e^z_c.
        mass = COUNTS * np.exp(exact)
        direct = -np.log(mass[np.arange(8), labels] / mass.sum(1))
        np.testing.assert_allclose(balanced_softmax(COUNTS)(logits, labels), direct, rtol=1e-4)


def test_balanced_softmax_of_balanced_classes_is_cross_entropy():
    _, logits, labels = random_logits()
    found = balanced_softmax(np.array([9, 9, 9, 9]))(logits, labels)
    np.testing.assert_allclose(found, cross_entropy(logits, labels), rtol=1e-5)


def test_a_class_without_examples_takes_no_share():
    _, logits, _ = random_logits()
    labels = np.zeros(8, int)
    found = balanced_softmax(np.array([3, 0, 2, 1]))(logits, labels)
    without = balanced_softmax(np.array([3, 2, 1]))(logits[:, [0, 2, 3]], labels)
    np.testing.assert_allclose(found, without, rtol=1e-5)
    gradient = jax.grad(lambda z: balanced_softmax(np.array([3, 0, 2, 1]))(z, labels).sum())(logits)
    assert np.isfinite(gradient).all() and (gradient[:, 1] == 0).all()


def test_ldam_by_hand():
    exact, logits, labels = random_logits(0.3)
    margins = 0.5 * (COUNTS.min() / COUNTS) ** 0.25
    shifted = exact.copy()
    shifted[np.arange(8), labels] -= margins[labels]
    wanted = -log_softmax(30 * shifted, axis=1)[np.arange(8), labels]
    np.testing.assert_allclose(ldam(COUNTS)(logits, labels), wanted, rtol=1e-3, atol=1e-5)
    assert margins.max() == 0.5


def test_ldam_of_a_class_without_examples_is_finite():
    _, logits, labels = random_logits(0.3)
    found = ldam(np.array([5, 0, 2, 1]))(logits, labels)
    np.testing.assert_allclose(found, ldam(np.array([5, 1, 2, 1]))(logits, labels), rtol=1e-6)


@pytest.mark.parametrize("make", [logit_adjusted, ldam])
@pytest.mark.parametrize("counts", [[0, 0], [-1, 2], [np.inf, 1]])
def test_losses_refuse_impossible_counts(make, counts):
    with pytest.raises(ValueError, match="counts"):
        make(np.array(counts, float))


def test_smoothing_is_the_cross_entropy_to_a_smoothed_target():
    exact, logits, labels = random_logits()
    epsilon = np.array([0.4, 0.3, 0.2, 0.0])
    found = smoothed(cross_entropy, epsilon)(logits, labels)
    share = epsilon[labels][:, None]
    target = (1 - share) * np.eye(4)[labels] + share / 4
    wanted = -(target * log_softmax(exact, axis=1)).sum(1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(
        smoothed(cross_entropy, 0.0)(logits, labels), cross_entropy(logits, labels), rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"epsilon is 1.0; it must lie in \[0, 1\)"):
        smoothed(cross_entropy, 1.0)


def test_label_aware_smoothing_rises_with_the_counts():
    counts = np.array([500, 275, 50])
    found = label_aware_smoothing(counts, 0.4, 0.1)
    np.testing.assert_allclose(found, [0.4, 0.1 + 0.3 * np.sin(np.pi / 4), 0.1], rtol=1e-6)
    np.testing.assert_allclose(label_aware_smoothing(np.array([7, 7]), 0.4, 0.1), 0.1)


def test_inverse_frequency_weights():
    found = inverse_frequency_weights(np.array([100, 10, 1, 0]))
    inverse = np.array([0.01, 0.1, 1.0, 0.0])
    np.testing.assert_allclose(found, 4 * inverse / inverse.sum(), rtol=1e-6)


PRIOR = np.array([0.9, 0.09, 0.01])
SCALE_FREE = {
    "balanced_softmax": lambda n: balanced_softmax(n)(*random_logits_of_three()),
    "logit_adjusted": lambda n: logit_adjusted(n, 1.5)(*random_logits_of_three()),
    "ldam": lambda n: ldam(n)(*random_logits_of_three()),
    "inverse_frequency_weights": inverse_frequency_weights,
    "label_aware_smoothing": label_aware_smoothing,
}


def random_logits_of_three():
    _, logits, labels = random_logits()
    return logits[:, :3], labels % 3


@pytest.mark.parametrize("name", SCALE_FREE)
def test_proportions_serve_where_the_scale_does_not_matter(name):
    """A prior once was a count below one, and all classes alike."""
    of_counts, of_prior = SCALE_FREE[name](PRIOR * 1000), SCALE_FREE[name](PRIOR)
    np.testing.assert_allclose(of_prior, of_counts, rtol=1e-5)
    assert np.ptp(SCALE_FREE[name](np.ones(3)) - of_prior) > 0.01


def test_proportions_are_refused_where_the_scale_matters():
    with pytest.raises(ValueError, match=r"effective_number_weights: counts is .* of proportions"):
        effective_number_weights(PRIOR)
    with pytest.raises(ValueError, match=r"ldam: counts is .* of proportions; give the numbers"):
        ldam(np.array([0.9, 0.1, 0.0]))


LOSSES = {
    "cross_entropy": cross_entropy,
    "focal": focal(0.5),
    "balanced_softmax": balanced_softmax(COUNTS),
    "ldam": ldam(COUNTS),
    "smoothed": smoothed(cross_entropy, np.array([0.4, 0.3, 0.2, 0.1])),
}


@pytest.mark.parametrize("name", LOSSES)
def test_labels_of_no_class_are_told_or_have_no_loss(name):
    _, logits, labels = random_logits()
    padded = jnp.asarray(labels).at[jnp.array([0, 1, 2])].set(jnp.array([-1, 4, 255]))
    with pytest.raises(ValueError, match="labels are whole numbers from 0 to 3; -1 is none"):
        LOSSES[name](logits, padded)
    found, gradient = jax.jit(
        lambda z, y: (LOSSES[name](z, y), jax.grad(lambda z: LOSSES[name](z, y).sum())(z))
    )(logits, padded)
    np.testing.assert_array_equal(found[:3], 0)
    np.testing.assert_array_equal(gradient[:3], 0)
    np.testing.assert_allclose(found[3:], LOSSES[name](logits, labels)[3:], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_and_strict_promotion(name, dtype):
    _, logits, labels = random_logits()
    half = logits.astype(dtype)
    with jax.numpy_dtype_promotion("strict"):
        found = LOSSES[name](half, jnp.asarray(labels, jnp.uint8))
    assert found.dtype == jnp.float32
    wanted = LOSSES[name](half.astype(jnp.float32), labels)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("make", [balanced_softmax, ldam])
@pytest.mark.usefixtures("signatures_unchecked")
def test_counts_of_one_class_are_not_those_of_all(make):
    _, logits, labels = random_logits()
    with pytest.raises(ValueError, match=r"logits has shape \(8, 4\); it must be \(any, 1\)"):
        make(np.array([5]))(logits, labels)
    with pytest.raises(ValueError, match=r"epsilon has shape \(1,\); it must be \(4,\)"):
        smoothed(cross_entropy, [0.1])(logits, labels)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: focal(np.nan), "focal: gamma is nan"),
        (lambda: focal(np.inf), "focal: gamma is inf"),
        (lambda: logit_adjusted(COUNTS, np.nan), "logit_adjusted: tau is nan"),
        (lambda: ldam(COUNTS, np.nan), "ldam: max_margin is nan"),
        (lambda: ldam(COUNTS, 0.5, np.inf), "ldam: scale is inf"),
        (lambda: smoothed(cross_entropy, np.nan), "smoothed: epsilon is nan"),
        (lambda: label_aware_smoothing(COUNTS, 1.5), "label_aware_smoothing: head is 1.5"),
        (lambda: label_aware_smoothing(COUNTS, 0.4, np.nan), "label_aware_smoothing: tail is nan"),
    ],
)
def test_numbers_that_are_none_are_refused(make, told):
    with pytest.raises(ValueError, match=f"{told}; it must "):
        make()


def test_a_logit_that_is_not_a_number_stays_one():
    _, logits, labels = random_logits()
    logits = logits.at[2, 1].set(jnp.nan)
    for loss in LOSSES.values():
        np.testing.assert_array_equal(np.isnan(loss(logits, labels)), np.arange(8) == 2)
