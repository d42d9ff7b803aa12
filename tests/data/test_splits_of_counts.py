import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otrw_jax.data.splits import Split, groups_of_copies, make_split, make_split_of_counts

PARTS = ("train", "meta", "held_out", "extra")


@st.composite
def _problems(draw):
    """Shuffled labels with copies among the examples, and arguments that they can satisfy."""
    sizes = draw(st.lists(st.integers(12, 30), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    groups = rng.permutation(len(labels))
    copies = rng.integers(0, len(labels), draw(st.integers(0, 20)))
    order = rng.permutation(len(labels) + len(copies))
    labels = np.concatenate([labels, labels[copies]])[order]
    groups = np.concatenate([groups, groups[copies]])[order]
    return labels, {
        "counts": [draw(st.integers(1, size - 9)) for size in sizes],
        "meta_per_class": draw(st.integers(0, 3)),
        "held_out_per_class": draw(st.integers(0, 3)),
        "extra_per_class": draw(st.integers(0, 3)),
        "groups": groups,
        "seed": draw(st.integers(0, 2**31)),
    }


@given(_problems())
@settings(deadline=None)
def test_parts_are_disjoint_by_group_and_of_the_size_they_should_be(problem):
    labels, arguments = problem
    split = make_split_of_counts(labels, **arguments)
    for name in PARTS:
        part = getattr(split, name)
        expected = arguments["counts"] if name == "train" else arguments[f"{name}_per_class"]
        assert part.dtype == np.int64
        np.testing.assert_array_equal(part, np.sort(part))
        sizes = np.bincount(labels[part], minlength=len(split.counts))
        np.testing.assert_array_equal(sizes, np.broadcast_to(expected, sizes.shape))
    np.testing.assert_array_equal(split.counts, arguments["counts"])
    ids = np.concatenate([getattr(split, name) for name in PARTS])
    groups = arguments["groups"]
    assert len(np.unique(groups[ids])) == len(ids)
    assert split.left_out == len(groups) - len(np.unique(groups))


@given(_problems())
@settings(deadline=None)
def test_the_training_set_alone_depends_on_the_counts(problem):
    labels, arguments = problem
    split = make_split_of_counts(labels, **arguments)
    fewer = make_split_of_counts(labels, **{**arguments, "counts": np.ones_like(split.counts)})
    for name in PARTS[1:]:
        np.testing.assert_array_equal(getattr(split, name), getattr(fewer, name))
    assert set(fewer.train) <= set(split.train)
    again = make_split_of_counts(labels, **arguments)
    assert again.fingerprint == split.fingerprint
    for part, same in zip(split, again, strict=True):
        np.testing.assert_array_equal(part, same)


def test_the_meta_set_is_that_of_the_long_tailed_split():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), 40))
    one = make_split(labels, imbalance_factor=3, seed=5, meta_per_class=4, held_out_per_class=2)
    two = make_split_of_counts(labels, one.counts, seed=5, meta_per_class=4, held_out_per_class=2)
    for part, same in zip(one, two, strict=True):
        np.testing.assert_array_equal(part, same)
    assert one.fingerprint == two.fingerprint


def test_the_extra_part_is_in_the_fingerprint_only_where_there_is_one():
    ids = np.arange(3)
    split = Split(ids[:1], ids[1:2], ids[2:], np.array([1, 1]))
    assert split.extra.size == 0
    assert split.fingerprint == split._replace(extra=ids[:0], left_out=4).fingerprint
    prints = {split._replace(extra=np.array(extra)).fingerprint for extra in ([3], [4], [3, 4])}
    assert len(prints | {split.fingerprint}) == 4


@pytest.mark.parametrize("minority", [1, 4, 8, 10])
def test_the_protocol_of_the_clouds_fits(minority):
    sizes = [106, 515, 889, 200, 200, 465, 200, 680, 392, 344]
    counts = [minority] + [100] * 9
    split = make_split_of_counts(np.repeat(np.arange(10), sizes), counts, seed=0, meta_per_class=5)
    assert (len(split.train), len(split.meta), split.left_out) == (900 + minority, 50, 0)
    test = np.repeat(np.arange(10), [50, 100, 100, 86, 86, 100, 86, 100, 100, 100])
    assert len(make_split_of_counts(test, [40] * 10, seed=0, meta_per_class=0).train) == 400


def test_a_group_is_an_input_and_what_is_excluded_is_in_none():
    texts = np.array(["b", "a", "b", "c", "d"])
    groups = groups_of_copies(texts, np.array(["c", "x"]))
    assert groups[0] == groups[2]
    assert len(set(groups)) == 4
    np.testing.assert_array_equal(groups < 0, [False, False, False, True, False])
    split = make_split_of_counts(
        np.array([0, 1, 0, 0, 1]), [1, 1], seed=0, meta_per_class=0, groups=groups
    )
    assert 0 in split.train
    assert split.left_out == 2
    np.testing.assert_array_equal(groups_of_copies(texts.astype(object)), groups_of_copies(texts))


LABELS = [0] * 20 + [1] * 15


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        (
            LABELS,
            {"counts": [5, 11], "extra_per_class": 3},
            "class 1 is to have 16 examples (11 training, 2 meta, 0 held-out, 3 extra), but 15 are "
            "available",
        ),
        (
            LABELS,
            {"counts": [5, 8], "groups": np.repeat(np.arange(29), [1] * 28 + [7])},
            "class 1 is to have 10 examples (8 training, 2 meta, 0 held-out, 0 extra), but 9 are",
        ),
        (
            [0] * 5 + [1] * 5,
            {"counts": [2, 2], "groups": np.array([0, 1, 2, 3, 4, 5, 5, -1, -1, 6])},
            "class 1 is to have 4 examples (2 training, 2 meta, 0 held-out, 0 extra), but 2 are "
            "available when copies are left out",
        ),
        (LABELS, {"counts": [5]}, "counts are [5]; 2 whole numbers of 1 or more are needed"),
        (LABELS, {"counts": [5, 0]}, "counts are [5, 0]; 2 whole numbers of 1 or more are needed"),
        (LABELS, {"counts": [5, 1.5]}, "counts are [5.0, 1.5]; 2 whole numbers of 1 or more"),
        (LABELS, {"meta_per_class": -1}, "meta_per_class is -1; it must be a whole"),
        (LABELS, {"extra_per_class": -1}, "extra_per_class is -1; it must be a whole"),
        (LABELS, {"groups": np.arange(3)}, "groups have shape (3,) and dtype int64"),
        ([0, 0, 2], {}, "class 1 has no example, though labels reach 2"),
    ],
)
def test_split_of_counts_refuses(labels, arguments, message):
    arguments = {"counts": [2, 2], "meta_per_class": 2, **arguments}
    with pytest.raises(ValueError, match=re.escape(message)):
        make_split_of_counts(np.array(labels), seed=0, **arguments)
