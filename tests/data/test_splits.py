import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otrw_jax.data.splits import Split, long_tailed_counts, make_split

CIFAR = {10: np.repeat(np.arange(10), 5000), 100: np.repeat(np.arange(100), 500)}


@pytest.mark.parametrize(
    ("num_classes", "imbalance_factor", "size"),
    [
        (10, 200, 11177),
        (10, 100, 12380),
        (10, 50, 13967),
        (10, 20, 16989),
        (100, 200, 9304),
        (100, 100, 10626),
        (100, 50, 12354),
        (100, 20, 15594),
    ],
)
def test_sizes_of_the_meta_family_are_the_published_ones(num_classes, imbalance_factor, size):
    split = make_split(CIFAR[num_classes], imbalance_factor=imbalance_factor, seed=0)
    assert len(split.train) == size
    assert len(split.meta) == 10 * num_classes
    assert len(split.held_out) == 0
    assert split.counts[0] == (4990 if num_classes == 10 else 490)


@pytest.mark.parametrize(
    ("num_classes", "imbalance_factor", "size", "head", "tail"),
    [(10, 100, 12406, 5000, 50), (10, 10, 20431, 5000, 500), (100, 100, 10847, 500, 5)],
)
def test_sizes_without_meta_set_are_those_of_the_ldam_family(
    num_classes, imbalance_factor, size, head, tail
):
    split = make_split(
        CIFAR[num_classes], imbalance_factor=imbalance_factor, seed=0, meta_per_class=0
    )
    assert (len(split.train), split.counts[0], split.counts[-1]) == (size, head, tail)
    assert len(split.meta) == 0


def test_counts_step_profile():
    np.testing.assert_array_equal(long_tailed_counts(5, 100, 10, "step"), [100, 100, 10, 10, 10])


@given(st.integers(1, 500), st.integers(2, 30))
def test_counts_reach_the_imbalance_factor_exactly_where_it_divides(tail, num_classes):
    for factor in (1, 3, 7, 49, 200):
        counts = long_tailed_counts(num_classes, tail * factor, factor)
        assert (counts[0], counts[-1]) == (tail * factor, tail)
        assert (np.diff(counts) <= 0).all()
        assert counts.dtype == np.int64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 100, 0.5), "imbalance_factor is 0.5; it must be at least 1"),
        ((10, 100, float("nan")), "imbalance_factor is nan; it must be at least 1"),
        ((10, 100, 10, "linear"), "profile is 'linear'; it must be one of exponential, step"),
        ((1, 100, 10), "num_classes is 1; a profile needs at least 2 classes"),
        ((10, 0, 10), "largest is 0; the largest class needs at least 1 example"),
        ((3, 10, 50), "class 2 would have no example with largest 10 and imbalance_factor 50"),
    ],
)
def test_counts_refuse(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        long_tailed_counts(*arguments)


@st.composite
def _problems(draw):
    """Shuffled labels with classes of unequal size, and arguments that they can satisfy."""
    sizes = draw(st.lists(st.integers(12, 40), min_size=2, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return labels, {
        "imbalance_factor": draw(st.floats(1, 6)),
        "meta_per_class": draw(st.integers(0, 5)),
        "held_out_per_class": draw(st.integers(0, 5)),
        "profile": draw(st.sampled_from(["exponential", "step"])),
        "seed": draw(st.integers(0, 2**31)),
    }


@given(_problems())
@settings(deadline=None)
def test_parts_are_disjoint_sorted_and_of_the_size_they_should_be(problem):
    labels, arguments = problem
    split = make_split(labels, **arguments)
    ids = np.concatenate([split.train, split.meta, split.held_out])
    assert len(np.unique(ids)) == len(ids)
    assert ids.min() >= 0
    assert ids.max() < len(labels)
    for part in split[:3]:
        assert part.dtype == np.int64
        np.testing.assert_array_equal(part, np.sort(part))

    num_classes = len(split.counts)
    sizes = np.bincount(labels)
    largest = sizes.min() - arguments["meta_per_class"]
    profile = long_tailed_counts(
        num_classes, largest, arguments["imbalance_factor"], arguments["profile"]
    )
    room = sizes - arguments["meta_per_class"] - arguments["held_out_per_class"]
    np.testing.assert_array_equal(split.counts, np.minimum(profile, room))
    for part, expected in (
        (split.train, split.counts),
        (split.meta, arguments["meta_per_class"]),
        (split.held_out, arguments["held_out_per_class"]),
    ):
        np.testing.assert_array_equal(
            np.bincount(labels[part], minlength=num_classes), np.broadcast_to(expected, num_classes)
        )


@given(_problems())
@settings(deadline=None)
def test_the_seed_decides_and_the_meta_set_depends_on_nothing_else(problem):
    labels, arguments = problem
    split = make_split(labels, **arguments)
    again = make_split(labels, **arguments)
    for part, same in zip(split, again, strict=True):
        np.testing.assert_array_equal(part, same)
    assert split.fingerprint == again.fingerprint

    other = make_split(labels, **{**arguments, "imbalance_factor": 1.5, "held_out_per_class": 1})
    np.testing.assert_array_equal(split.meta, other.meta)

    balanced = make_split(labels, **{**arguments, "imbalance_factor": 1})
    assert set(split.train) <= set(balanced.train)


def test_another_seed_is_another_subset():
    splits = [make_split(CIFAR[10], imbalance_factor=100, seed=seed) for seed in range(3)]
    assert len({split.fingerprint for split in splits}) == 3
    assert not np.array_equal(splits[0].meta, splits[1].meta)


def test_a_seed_means_the_same_subset_everywhere():
    split = make_split(CIFAR[10], imbalance_factor=100, seed=0)
    assert split.fingerprint == "2ef0d9417268797f"


@given(*[st.lists(st.integers(0, 3), max_size=3)] * 6)
def test_the_fingerprint_changes_when_and_only_when_the_content_does(a, b, c, d, e, f):
    counts = np.array([1, 1])
    one = Split(*(np.array(part, np.int64) for part in (a, b, c)), counts)
    two = Split(*(np.array(part, np.int32) for part in (d, e, f)), counts)
    assert (one.fingerprint == two.fingerprint) == ((a, b, c) == (d, e, f))
    assert re.fullmatch("[0-9a-f]{16}", one.fingerprint)
    moved = Split(one.train[:0], np.concatenate([one.train, one.meta]), one.held_out, counts)
    assert (one.fingerprint == moved.fingerprint) == (not a)


def test_held_out_examples_clip_the_head_class_alone():
    arguments = {"imbalance_factor": 100, "seed": 3}
    plain = make_split(CIFAR[10], **arguments)
    split = make_split(CIFAR[10], held_out_per_class=20, **arguments)
    np.testing.assert_array_equal(split.counts[1:], plain.counts[1:])
    assert split.counts[0] == plain.counts[0] - 20


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        ([0, 0, 2, 2], {}, "class 1 has no example, though labels reach 2"),
        (
            [0] * 20 + [1] * 12,
            {"held_out_per_class": 2},
            "class 1 has 12 examples, too few for 10 meta, 2 held-out and 1 training example",
        ),
        (
            [0] * 20 + [1] * 15,
            {"largest": 11},
            "class 0 is to have 11 training examples, but 20 less 10 meta examples",
        ),
        ([0, 1], {"meta_per_class": -1}, "meta_per_class is -1; it must be a whole"),
        ([0, 1], {"meta_per_class": 1.5}, "meta_per_class is 1.5; it must be a whole"),
        ([0, 1], {"held_out_per_class": -2}, "held_out_per_class is -2; it must be a whole"),
        ([0.0, 1.0], {}, "labels have shape (2,) and dtype float64"),
        (np.zeros((2, 2), int), {}, "labels have shape (2, 2) and dtype int64"),
        (np.zeros(0, int), {}, "labels have shape (0,) and dtype int64"),
        ([-1, 0, 1], {}, "a label is -1; labels must be class numbers from 0 on"),
        ([0] * 20, {}, "num_classes is 1; a profile needs at least 2 classes"),
    ],
)
def test_split_refuses(labels, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_split(np.asarray(labels), imbalance_factor=2, seed=0, **arguments)
