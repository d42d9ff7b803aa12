import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from otrw_jax import metrics

K = 5


def made_data(seed, n=200, k=K):
    rng = np.random.default_rng(seed)
    labels = rng.choice(k, size=n, p=np.arange(k, 0, -1) / (k * (k + 1) / 2))
    logits = (2 * rng.normal(size=(n, k)) + 2 * np.eye(k)[labels]).astype(np.float32)
    return logits, labels


def reference_ece(logits, labels, num_bins):
    probabilities = softmax(logits.astype(np.float64), axis=1)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    error = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_agrees_with_scikit_learn(seed):
    logits, labels = made_data(seed)
    predictions = logits.argmax(axis=1)
    confusion = metrics.confusion_matrix(predictions, labels, K)
    assert confusion.dtype == jnp.int32
    expected = sklearn.metrics.confusion_matrix(labels, predictions, labels=np.arange(K))
    np.testing.assert_array_equal(confusion, expected)
    np.testing.assert_allclose(
        metrics.top1_error(confusion), 1 - np.mean(predictions == labels), rtol=1e-5
    )
    np.testing.assert_allclose(
        metrics.balanced_accuracy(confusion),
        sklearn.metrics.balanced_accuracy_score(labels, predictions),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        metrics.per_class_accuracy(confusion),
        sklearn.metrics.recall_score(labels, predictions, average=None),
        rtol=1e-5,
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_bins=st.sampled_from([1, 10, 15]))
def test_calibration_error_agrees_with_its_definition(seed, num_bins):
    logits, labels = made_data(seed)
    bins = metrics.calibration_bins(logits, labels, num_bins)
    np.testing.assert_allclose(
        metrics.expected_calibration_error(bins),
        reference_ece(logits, labels, num_bins),
        rtol=1e-3,
        atol=1e-6,
    )


def test_batches_add_up_and_masked_examples_do_not_count():
    logits, labels = made_data(0, n=100)
    predictions = logits.argmax(axis=1)
    whole = metrics.confusion_matrix(predictions, labels, K)
    whole_bins = metrics.calibration_bins(logits, labels)
    # Two batches of 64; the second is padded by 28 examples of label -1.
    padded_logits = np.pad(logits, ((0, 28), (0, 0)))
    padded_labels = np.pad(labels, (0, 28), constant_values=-1)
    mask = np.arange(128) < 100
    parts, part_bins = [], []
    for batch in (slice(0, 64), slice(64, 128)):
        x, y, m = padded_logits[batch], padded_labels[batch], mask[batch]
        parts.append(metrics.confusion_matrix(x.argmax(axis=1), y, K, m))
        part_bins.append(metrics.calibration_bins(x, y, mask=m))
    np.testing.assert_array_equal(parts[0] + parts[1], whole)
    onto = metrics.confusion_matrix(x.argmax(axis=1), y, K, m, initial=parts[0])
    np.testing.assert_array_equal(onto, whole)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        part_bins[0] + part_bins[1],
        whole_bins,
    )


def test_a_class_without_examples_is_left_out():
    confusion = jnp.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    np.testing.assert_allclose(metrics.per_class_accuracy(confusion), [0.75, np.nan, 0.5])
    np.testing.assert_allclose(metrics.balanced_accuracy(confusion), 0.625)


def test_without_examples_everything_is_nan():
    nothing = jnp.zeros((2, 2), int)
    assert np.isnan(metrics.top1_error(nothing))
    assert np.isnan(metrics.balanced_accuracy(nothing))
    bins = metrics.calibration_bins(jnp.zeros((3, 2)), jnp.zeros(3, int), mask=jnp.zeros(3, bool))
    assert np.isnan(metrics.expected_calibration_error(bins))


def test_shot_groups_include_both_ends_in_medium():
    confusion = jnp.diag(jnp.array([1, 2, 3, 4])) + jnp.ones((4, 4), int)
    accuracy = np.array([2 / 5, 3 / 6, 4 / 7, 5 / 8])
    shots = metrics.shot_accuracy(confusion, jnp.array([101, 100, 20, 19]))
    np.testing.assert_allclose(shots["many"], accuracy[0], rtol=1e-6)
    np.testing.assert_allclose(shots["medium"], accuracy[1:3].mean(), rtol=1e-6)
    np.testing.assert_allclose(shots["few"], accuracy[3], rtol=1e-6)


def test_shot_groups_leave_out_untested_classes_and_may_be_empty():
    confusion = jnp.array([[4, 0, 0], [0, 0, 0], [0, 1, 1]])
    shots = metrics.shot_accuracy(confusion, np.array([500, 300, 30]))
    np.testing.assert_allclose(shots["many"], 1.0)
    np.testing.assert_allclose(shots["medium"], 0.5)
    assert np.isnan(shots["few"])


def test_certain_predictions_fall_into_the_last_bin():
    logits = jnp.array([[100.0, 0.0], [0.0, 100.0]])
    bins = metrics.calibration_bins(logits, jnp.array([0, 0]), num_bins=10)
    np.testing.assert_array_equal(bins.count, [0] * 9 + [2])
    np.testing.assert_array_equal(bins.correct, [0] * 9 + [1])
    np.testing.assert_allclose(metrics.expected_calibration_error(bins), 0.5)


def test_summary_is_python_floats_in_percent():
    logits, labels = made_data(1)
    confusion = metrics.confusion_matrix(logits.argmax(axis=1), labels, K)
    bins = metrics.calibration_bins(logits, labels)
    summary = metrics.summarise(confusion, bins, np.array([900, 200, 100, 30, 2]))
    assert set(summary) == {
        "error",
        "balanced_accuracy",
        "many_accuracy",
        "medium_accuracy",
        "few_accuracy",
        "ece",
    }
    assert all(type(value) is float for value in summary.values())
    assert summary["error"] == pytest.approx(100 * np.mean(logits.argmax(axis=1) != labels))
    recall = sklearn.metrics.recall_score(labels, logits.argmax(axis=1), average=None)
    assert summary["many_accuracy"] == pytest.approx(100 * recall[:2].mean())
    assert summary["medium_accuracy"] == pytest.approx(100 * recall[2:4].mean())
    assert summary["few_accuracy"] == pytest.approx(100 * recall[4])
    assert summary["ece"] == pytest.approx(100 * reference_ece(logits, labels, 15), rel=1e-3)


def test_statistics_are_the_same_under_jit():
    logits, labels = made_data(2)

    def statistics(logits, labels):
        confusion = metrics.confusion_matrix(logits.argmax(axis=1), labels, K)
        return confusion, metrics.calibration_bins(logits, labels)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        jax.jit(statistics)(logits, labels),
        statistics(logits, labels),
    )


@pytest.mark.usefixtures("signatures_unchecked")
def test_wrong_shapes_and_bounds_are_errors():
    with pytest.raises(ValueError, match="it must be "):
        metrics.confusion_matrix(np.zeros(3, int), np.zeros(1, int), K)
    with pytest.raises(ValueError, match="it must be "):
        metrics.confusion_matrix(np.zeros(3, int), np.zeros(3, int), K, np.ones(1, bool))
    with pytest.raises(ValueError, match="it must be "):
        metrics.calibration_bins(np.zeros((3, K)), np.zeros(1, int))
    with pytest.raises(ValueError, match="it must be "):
        metrics.shot_accuracy(jnp.eye(3, dtype=int), np.array([1]))
    with pytest.raises(ValueError, match="few"):
        metrics.shot_accuracy(jnp.eye(2, dtype=int), np.array([1, 2]), many=5, few=6)


@pytest.mark.parametrize("foreign", [-1, 3, 255])
def test_labels_of_no_class_are_told_or_do_not_count(foreign):
    labels, predictions = jnp.array([0, 1, 2, foreign]), jnp.array([0, 2, 2, 1])
    logits = 2 * jnp.eye(3)[predictions]
    told = f"labels are whole numbers from 0 to 2; {foreign} is none"
    with pytest.raises(ValueError, match=f"confusion_matrix: {told}"):
        metrics.confusion_matrix(predictions, labels, 3)
    with pytest.raises(ValueError, match=f"confusion_matrix: predictions: {told}"):
        metrics.confusion_matrix(labels, predictions, 3)
    with pytest.raises(ValueError, match=f"calibration_bins: {told}"):
        metrics.calibration_bins(logits, labels)

    jitted = jax.jit(metrics.confusion_matrix, static_argnums=2)
    wanted = metrics.confusion_matrix(predictions[:3], labels[:3], 3)
    np.testing.assert_array_equal(jitted(predictions, labels, 3), wanted)
    np.testing.assert_array_equal(jitted(labels, predictions, 3), wanted.T)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        jax.jit(metrics.calibration_bins)(logits, labels),
        metrics.calibration_bins(logits[:3], labels[:3]),
    )
    # Where the mask is False, any value may stand.
    mask = jnp.arange(4) < 3
    np.testing.assert_array_equal(metrics.confusion_matrix(predictions, labels, 3, mask), wanted)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_labels_of_any_integer_type(dtype):
    labels, predictions = np.array([0, 1, 2], dtype), jnp.array([0, 2, 2])
    with jax.numpy_dtype_promotion("strict"):
        found = metrics.confusion_matrix(predictions, labels, 3)
        bins = metrics.calibration_bins(2 * jnp.eye(3, dtype=jnp.bfloat16)[predictions], labels)
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 0, 1], [0, 0, 1]])
    assert int(bins.correct.sum()) == 2


@pytest.mark.usefixtures("signatures_unchecked")
def test_shot_groups_are_of_counts():
    with pytest.raises(ValueError, match=r"shot_accuracy: counts is .* of proportions"):
        metrics.shot_accuracy(jnp.eye(3, dtype=int), np.array([0.9, 0.09, 0.01]))
    with pytest.raises(ValueError, match="shot_accuracy: many is nan; it must be finite"):
        metrics.shot_accuracy(jnp.eye(2, dtype=int), np.array([1, 2]), many=np.nan)
    with pytest.raises(ValueError, match="calibration_bins: num_bins is 0; it must be 1 or more"):
        metrics.calibration_bins(np.zeros((3, 2)), np.zeros(3, int), 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_leave_no_metric(value):
    """One example among many, and of the same predicted class as before."""
    logits, labels = made_data(0)
    counts = np.arange(K, 0, -1) * 30
    confusion = metrics.confusion_matrix(logits.argmax(axis=1), labels, K)
    one = np.arange(len(labels)) == np.flatnonzero(logits.argmax(axis=1) == labels)[0]
    spoilt = np.where(one[:, None] & (logits == logits.max(1, keepdims=True)), value, logits)
    whole, bins = (metrics.calibration_bins(jnp.asarray(x), labels) for x in (logits, spoilt))
    assert metrics.all_finite(whole) and not metrics.all_finite(bins)
    assert bins.count.sum() == len(labels) and bins.correct.sum() == whole.correct.sum() - 1
    found = metrics.summarise(confusion, bins, counts)
    assert len(found) == 6 and np.isnan(list(found.values())).all()
    # Where it is masked, it does not count.
    rest = metrics.calibration_bins(jnp.asarray(spoilt), labels, mask=jnp.asarray(~one))
    assert np.isfinite(metrics.summarise(confusion, rest, counts)["error"])
