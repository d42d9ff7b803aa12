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


def test_lengths_must_agree():
    for function in (measures.whole, lambda f, y: measures.prototypes(f, y, 3)):
        with pytest.raises(AssertionError):
            function(FEATURES, LABELS[:-1])
