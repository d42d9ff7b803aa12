"""The measures: atoms, labels, masses, and what is random about them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.ot import measures

RNG = np.random.default_rng(0)
LABELS = np.array([2, 0, 1, 1, 2, 0, 2, 2, 1, 0, 2])  # Three, three and five examples.
FEATURES = RNG.normal(size=(11, 4)).astype(np.float32)
MEANS = np.stack([FEATURES[c == LABELS].mean(0) for c in range(3)])


def test_whole():
    measure = measures.whole(FEATURES, LABELS)
    np.testing.assert_array_equal(measure.features, FEATURES)
    np.testing.assert_array_equal(measure.labels, LABELS)
    np.testing.assert_allclose(measure.weights, np.full(11, 1 / 11))


def test_prototypes_are_class_means():
    np.testing.assert_allclose(measures.prototypes(FEATURES, LABELS, 3), MEANS, rtol=1e-5)
    measure = measures.prototype_measure(FEATURES, LABELS, 3)
    np.testing.assert_allclose(measure.features, MEANS, rtol=1e-5)
    np.testing.assert_array_equal(measure.labels, [0, 1, 2])
    np.testing.assert_allclose(measure.weights, np.full(3, 1 / 3))


def test_prototypes_of_images_of_bytes():
    images = RNG.integers(0, 256, (11, 2, 3, 1), dtype=np.uint8)
    wanted = np.stack([images[c == LABELS].mean(0) for c in range(3)])
    found = measures.prototypes(images, LABELS, 3)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_prototypes_of_whole_numbers_of_64_bits():
    found = measures.prototypes(np.int64(2**40) * LABELS[:, None], LABELS, 3)
    np.testing.assert_array_equal(found[:, 0], 2.0**40 * np.arange(3))


def test_random_sample_is_one_example_of_each_class():
    draw = jax.jit(lambda key: measures.random_sample(key, FEATURES, LABELS, 3))
    seen = set()
    for seed in range(60):
        measure = draw(jax.random.key(seed))
        np.testing.assert_array_equal(measure.labels, [0, 1, 2])
        np.testing.assert_allclose(measure.weights, np.full(3, 1 / 3))
        for c, atom in enumerate(np.asarray(measure.features)):
            (row,) = np.flatnonzero((atom == FEATURES).all(1))
            assert LABELS[row] == c
            seen.add(row)
    assert len(seen) == 11
    again = draw(jax.random.key(0))
    np.testing.assert_array_equal(again.features, draw(jax.random.key(0)).features)


def test_random_prototypes_are_a_subset():
    subsets = set()
    for seed in range(20):
        measure = measures.random_prototypes(jax.random.key(seed), FEATURES, LABELS, 3, 2)
        chosen = np.asarray(measure.labels)
        assert len(set(chosen.tolist())) == 2
        np.testing.assert_allclose(measure.features, MEANS[chosen], rtol=1e-5)
        np.testing.assert_allclose(measure.weights, [0.5, 0.5])
        subsets.add(tuple(sorted(chosen.tolist())))
    assert subsets == {(0, 1), (0, 2), (1, 2)}


@pytest.mark.parametrize("count", [0, 4])
def test_random_prototypes_count(count):
    with pytest.raises(ValueError, match=f"count is {count}; choose 1 to 3"):
        measures.random_prototypes(jax.random.key(0), FEATURES, LABELS, 3, count)


@pytest.mark.parametrize("per_class", [1, 3, 7])
def test_balanced_sample(per_class):
    ids = np.asarray(measures.balanced_sample(jax.random.key(1), LABELS, 3, per_class))
    np.testing.assert_array_equal(LABELS[ids], np.repeat(np.arange(3), per_class))
    uses = np.bincount(ids, minlength=11)
    for c in range(3):
        of_class = uses[c == LABELS]
        assert of_class.max() - of_class.min() <= 1  # Equal shares: no repeat before all are drawn.


def test_balanced_sample_depends_on_the_key():
    draws = {
        tuple(np.asarray(measures.balanced_sample(jax.random.key(seed), LABELS, 3, 2)).tolist())
        for seed in range(10)
    }
    assert len(draws) > 5


def test_a_missing_class_is_named():
    functions = [
        lambda labels: measures.prototypes(FEATURES, labels, 4),
        lambda labels: measures.prototype_measure(FEATURES, labels, 4),
        lambda labels: measures.random_sample(jax.random.key(0), FEATURES, labels, 4),
        lambda labels: measures.random_prototypes(jax.random.key(0), FEATURES, labels, 4, 2),
        lambda labels: measures.balanced_sample(jax.random.key(0), labels, 4, 1),
    ]
    without_one = np.where(LABELS == 1, 3, LABELS)
    for function in functions:
        with pytest.raises(ValueError, match=r"1 of 4 classes have no meta example: 1\. Give"):
            function(without_one)


@pytest.mark.usefixtures("signatures_unchecked")
def test_many_missing_classes_are_named_in_part():
    message = r"18 of 20 classes have no training example: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\."
    with pytest.raises(ValueError, match=message):
        measures.require_every_class(np.array([18, 19]), 20, of="training")
    measures.require_every_class(np.arange(20), 20)
    for foreign in (3, -1, 0.5):
        with pytest.raises(
            ValueError, match=rf"meta labels are whole .* 0 to 2; {foreign} is none"
        ):
            measures.require_every_class(np.array([0, 1, 2, foreign]), 3)


def test_a_missing_class_among_traced_labels_is_a_zero_atom():
    atoms = jax.jit(lambda labels: measures.prototypes(FEATURES, labels, 4))(LABELS)
    np.testing.assert_allclose(atoms, np.concatenate([MEANS, np.zeros((1, 4))]), rtol=1e-5)


@pytest.mark.usefixtures("signatures_unchecked")
def test_lengths_must_agree():
    for function in (measures.whole, lambda f, y: measures.prototypes(f, y, 3)):
        with pytest.raises(
            ValueError, match=r"labels has the shape \(10,\); it must be \[m = 11\]"
        ):
            function(FEATURES, LABELS[:-1])


def test_known_labels_of_no_class_are_refused():
    for foreign in (-1, 3, 255):
        labels = np.append(LABELS[:-1], foreign)
        message = rf"meta labels are whole numbers from 0 to 2; {foreign} is none"
        for function in (
            lambda labels: measures.random_sample(jax.random.key(0), FEATURES, labels, 3),
            lambda labels: measures.balanced_sample(jax.random.key(0), labels, 3, 1),
            lambda labels: measures.prototypes(FEATURES, labels, 3),
        ):
            with pytest.raises(ValueError, match=message):
                function(labels)
    with pytest.raises(ValueError, match=r"meta labels are whole numbers from 0 on; -1 is none"):
        measures.whole(FEATURES, np.append(LABELS[:-1], -1))


def test_traced_labels_of_no_class_are_left_out():
    """Padding, -1, and numbers past the last class: drawn for none, counted for none."""
    draw = jax.jit(lambda key, labels: measures.balanced_sample(key, labels, 4, 2))
    padded = np.array([2, -1, 1, 1, 2, 0, 255, 2, 1, 0, 4])  # Class 3 has no example.
    for seed in range(10):
        ids = np.asarray(draw(jax.random.key(seed), padded))
        np.testing.assert_array_equal(padded[ids[:6]], [0, 0, 1, 1, 2, 2])
        np.testing.assert_array_equal(ids[6:], [11, 11])
    sample = jax.jit(lambda labels: measures.random_sample(jax.random.key(0), FEATURES, labels, 4))
    assert not sample(padded).features[3].any() and sample(padded).features[:3].any(axis=1).all()
    means = jax.jit(lambda labels: measures.prototypes(FEATURES, labels, 4))(padded)
    np.testing.assert_allclose(means[2], FEATURES[[0, 4, 7]].mean(0), rtol=1e-5)
    weights = jax.jit(measures.whole)(FEATURES, padded).weights
    np.testing.assert_allclose(weights, np.where(padded < 0, 0, 1 / 10), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_prototypes_of_half_precision_are_added_up_in_float32(dtype):
    many = np.full((3000, 1), 1.5)
    found = measures.prototypes(jnp.asarray(many, dtype), np.zeros(3000, int), 1)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(jnp.float32), [[1.5]])


def test_a_feature_that_is_not_a_number_is_one_in_every_prototype_of_it():
    features = np.array(FEATURES)
    features[3, 2] = np.nan
    assert np.isnan(measures.prototypes(features, LABELS, 3)[:, 2]).any()


def test_labels_of_a_small_type_and_more_classes_than_it_holds():
    labels = np.arange(300) % 256
    features = np.eye(256, dtype=np.float32)[labels]

    def found(labels):
        return measures.prototypes(features, labels, 300)

    means = jax.jit(found)(labels.astype(np.uint8))  # Classes 256 to 299 have no example.
    np.testing.assert_array_equal(means[:256], np.eye(256))
    np.testing.assert_array_equal(means[256:], 0)
