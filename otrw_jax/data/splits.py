"""Imbalanced subsets of a training set, with a meta set and a held-out set."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

PROFILES = ("exponential", "step")


class Split(NamedTuple):
    """Disjoint parts of a training set, as sorted int64 indices into it.

    Attributes:
        train: [n], the imbalanced training examples.
        meta: [m], the small balanced set that guides the weights; where asked for, some of `train`.
        held_out: [v], balanced too, for the choice of a checkpoint; often empty.
        counts: [K], the number of training examples of each class.
        extra: [e], further balanced examples, on which a backbone is fine-tuned; often empty.
        left_out: the number of examples that no part could have, being copies of others.
        content: hash of what is indexed, where its order is that of a user's files; else empty.
    """

    train: Int[np.ndarray, "n"]
    meta: Int[np.ndarray, "m"]
    held_out: Int[np.ndarray, "v"]
    counts: Int[np.ndarray, "k"]
    extra: Int[np.ndarray, "e"] = np.zeros(0, np.int64)
    left_out: int = 0
    content: str = ""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the subset: a SHA-256 over the index lists.

        They are three, and `extra` is a fourth where it is not empty; then `content`.
        """
        parts = [self.train, self.meta, self.held_out]
        if len(self.extra):
            parts.append(self.extra)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(np.asarray(part, dtype="<i8").tobytes())
        digest.update(self.content.encode())
        return digest.hexdigest()[:16]


def make_split(
    labels: Int[np.ndarray, "N"],
    *,
    imbalance_factor: float,
    seed: int,
    meta_per_class: int = 10,
    held_out_per_class: int = 0,
    largest: int | None = None,
    profile: str = "exponential",
) -> Split:
    """Draws a long-tailed training set, a meta set and a held-out set from labelled examples.

    The examples of a class are shuffled with `seed` and dealt in this order: meta, held-out,
    training. So the meta set depends on `seed` and `meta_per_class` alone, and under one seed
    the training set of a larger imbalance factor lies within that of a smaller one.

    Two families of sizes are in use, and their results do not compare. Taking the meta set out
    first, `largest` is 4990 on CIFAR-10 and 490 on CIFAR-100 (Meta-Weight-Net, MetaSAug, and
    the papers that follow them); with `meta_per_class=0` it is 5000 and 500 (LDAM).

    The held-out part does not change the profile. Only a class too small for both its count and
    its held-out examples is clipped: on CIFAR the head class, unless the imbalance is mild.

    Args:
        labels: class of each example of the source's training part, in 0..K-1.
        imbalance_factor: largest over smallest class count, at least 1.
        seed: chooses the subset.
        meta_per_class: meta examples of each class.
        held_out_per_class: held-out examples of each class.
        largest: training examples of class 0, the head; by default the size of the smallest
            class less `meta_per_class`.
        profile: how the counts fall, as in `long_tailed_counts`.

    Raises:
        ValueError: the labels are no vector of class numbers, a class is absent or too small
            for what is asked of it, a number per class is negative, or as in
            `long_tailed_counts`.
    """
    _check_per_class(meta_per_class=meta_per_class, held_out_per_class=held_out_per_class)
    sizes = _class_sizes(labels)
    reserved = meta_per_class + held_out_per_class
    for c, size in enumerate(sizes):
        if size < reserved + 1:
            raise ValueError(
                f"class {c} has {size} examples, too few for {meta_per_class} meta, "
                f"{held_out_per_class} held-out and 1 training example; lower meta_per_class "
                "or held_out_per_class."
            )
    if largest is None:
        largest = int(sizes.min()) - meta_per_class
    counts = long_tailed_counts(len(sizes), largest, imbalance_factor, profile)
    for c in np.flatnonzero(counts > sizes - meta_per_class)[:1]:
        raise ValueError(
            f"class {c} is to have {counts[c]} training examples, but {sizes[c]} less "
            f"{meta_per_class} meta examples are all there are; lower `largest`, now {largest}."
        )
    counts = np.minimum(counts, sizes - reserved)

    sizes_of_parts = np.stack(np.broadcast_arrays(meta_per_class, held_out_per_class, counts))
    meta, held_out, train = _deal(labels, np.arange(len(labels)), sizes_of_parts, seed)
    return Split(train, meta, held_out, counts)


def make_split_of_counts(
    labels: Int[np.ndarray, "N"],
    counts: Sequence[int] | Int[np.ndarray, "k"],
    *,
    seed: int,
    meta_per_class: int,
    held_out_per_class: int = 0,
    extra_per_class: int = 0,
    groups: Int[np.ndarray, "N"] | None = None,
) -> Split:
    """Draws a training set with given class counts, and balanced sets beside it.

    The examples of a class are shuffled with `seed` and dealt in this order: meta, held-out,
    extra, training. So nothing but the training set depends on `counts`, and under one seed the
    training set of a smaller minority lies within that of a larger one.

    Guo et al., Learning to Re-weight Examples with Optimal Transport for Imbalanced
    Classification, NeurIPS 2022, section 6.2 (texts: one class of few examples, 500 extra
    examples of each) and appendix D (clouds; its balanced test set is such a split too, of the
    test part, with equal counts and no meta set).

    Args:
        labels: class of each example of the source's training part, in 0..K-1.
        counts: training examples of each of the K classes, at least 1.
        seed: chooses the subset.
        meta_per_class: meta examples of each class.
        held_out_per_class: held-out examples of each class.
        extra_per_class: extra examples of each class.
        groups: examples of one number are copies of one another: the first is dealt, the others
            are left out. Those of a negative number are all left out. `groups_of_copies` makes
            them. By default there are no copies.

    Raises:
        ValueError: a class is too small for what is asked of it, the counts do not fit the
            classes, a number is too small, the labels are no vector of class numbers or
            `groups` does not have their shape.
    """
    _check_per_class(
        meta_per_class=meta_per_class,
        held_out_per_class=held_out_per_class,
        extra_per_class=extra_per_class,
    )
    num_classes = len(_class_sizes(labels))
    counts = np.asarray(counts)
    if counts.shape != (num_classes,) or counts.dtype.kind not in "iu" or counts.min() < 1:
        raise ValueError(
            f"counts are {counts.tolist()}; {num_classes} whole numbers of 1 or more are needed, "
            "one for each class."
        )
    counts = counts.astype(np.int64)
    ids = _first_of_each(labels, groups)
    available = np.bincount(labels[ids], minlength=num_classes)
    reserved = meta_per_class + held_out_per_class + extra_per_class
    for c in np.flatnonzero(counts + reserved > available)[:1]:
        raise ValueError(
            f"class {c} is to have {counts[c] + reserved} examples ({counts[c]} training, "
            f"{meta_per_class} meta, {held_out_per_class} held-out, {extra_per_class} extra), but "
            f"{available[c]} are available"
            + (" when copies are left out." if len(ids) < len(labels) else ".")
        )
    sizes = np.stack(
        np.broadcast_arrays(meta_per_class, held_out_per_class, extra_per_class, counts)
    )
    meta, held_out, extra, train = _deal(labels, ids, sizes, seed)
    return Split(train, meta, held_out, counts, extra, len(labels) - len(ids))


def groups_of_copies(
    inputs: Shaped[np.ndarray, "N"], excluded: Shaped[np.ndarray, "M"] | None = None
) -> Int[np.ndarray, "N"]:
    """Numbers for `groups` of `make_split_of_counts`: the same for the same input.

    Args:
        inputs: such as the sentences of the training part.
        excluded: inputs to leave out, such as the sentences of the test part; theirs is -1.
    """
    groups = np.unique(inputs, return_inverse=True)[1]
    return groups if excluded is None else np.where(np.isin(inputs, excluded), -1, groups)


def draw_of_each(
    labels: Int[np.ndarray, "N"], count: int, seed: int, num_classes: int, part: str
) -> Int[np.ndarray, "m"]:
    """Sorted indices of so many random examples of each class.

    Args:
        labels: class of each example of a part.
        count: of each class.
        seed: chooses them.
        num_classes: K.
        part: its name, as messages have it.

    Raises:
        ValueError: a class has fewer.
    """
    sizes = np.bincount(labels, minlength=num_classes)
    for c in np.flatnonzero(sizes < count)[:1]:
        raise ValueError(
            f"class {c} has {sizes[c]} examples in the {part} part, too few for {count} meta "
            "examples; lower meta_per_class."
        )
    return _deal(labels, np.arange(len(labels)), np.full((1, num_classes), count), seed)[0]


def long_tailed_counts(
    num_classes: int, largest: int, imbalance_factor: float, profile: str = "exponential"
) -> Int[np.ndarray, "k"]:
    """The number of training examples of each class, in int64.

    Exponential: n_c = ⌊m·IF^(-c/(K-1))⌋. Step: m for the first half of the classes (rounded
    down), ⌊m/IF⌋ for the rest. Here m is `largest` and IF the imbalance factor.

    Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, section 5.1
    (exponential); Buda et al., A systematic study of the class imbalance problem, 2018 (step).

    Args:
        num_classes: K, at least 2.
        largest: m, at least 1.
        imbalance_factor: IF, at least 1; 1 keeps the classes balanced.
        profile: "exponential" or "step".

    Raises:
        ValueError: an argument is out of its range, or a class would be left empty.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}; it must be one of {', '.join(PROFILES)}.")
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; a profile needs at least 2 classes.")
    if largest < 1:
        raise ValueError(f"largest is {largest}; the largest class needs at least 1 example.")
    if not imbalance_factor >= 1:
        raise ValueError(
            f"imbalance_factor is {imbalance_factor}; it must be at least 1: the largest class "
            "count over the smallest, for example 100."
        )
    c = np.arange(num_classes)
    if profile == "exponential":
        share = float(imbalance_factor) ** (-c / (num_classes - 1))
    else:
        share = np.where(c < num_classes // 2, 1.0, 1.0 / imbalance_factor)
    # The small addend keeps products such as 49·(1/49) from rounding to just under an integer.
    counts = np.floor(largest * share + 1e-9).astype(np.int64)
    for c in np.flatnonzero(counts == 0)[:1]:
        raise ValueError(
            f"class {c} would have no example with largest {largest} and imbalance_factor "
            f"{imbalance_factor}; lower imbalance_factor to at most {largest}."
        )
    return counts


def _check_per_class(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int | np.integer) or number < 0:
            raise ValueError(f"{name} is {number}; it must be a whole number, 0 or more.")


def _class_sizes(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels have shape {labels.shape} and dtype {labels.dtype}; "
            "a non-empty vector of integers is needed."
        )
    if labels.min() < 0:
        raise ValueError(f"a label is {labels.min()}; labels must be class numbers from 0 on.")
    sizes = np.bincount(labels)
    for c in np.flatnonzero(sizes == 0)[:1]:
        raise ValueError(
            f"class {c} has no example, though labels reach {len(sizes) - 1}; "
            "number the classes without gaps."
        )
    return sizes.astype(np.int64)


def _first_of_each(labels: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Sorted indices of the examples that are no copies of an earlier one."""
    if groups is None:
        return np.arange(len(labels))
    groups = np.asarray(groups)
    if groups.shape != labels.shape or groups.dtype.kind not in "iu":
        raise ValueError(
            f"groups have shape {groups.shape} and dtype {groups.dtype}; an integer for each of "
            f"the {len(labels)} labels is needed."
        )
    numbers, first = np.unique(groups, return_index=True)
    return np.sort(first[numbers >= 0])


def _deal(
    labels: np.ndarray, ids: np.ndarray, sizes: Int[np.ndarray, "parts k"], seed: int
) -> list[np.ndarray]:
    """Parts with so many examples of each class, drawn from those of the given indices."""
    rng = np.random.default_rng(seed)
    dealt = []
    for c, ends in enumerate(np.cumsum(sizes, axis=0).T):
        shuffled = rng.permutation(ids[labels[ids] == c])
        dealt.append(np.split(shuffled, ends)[:-1])
    return [np.sort(np.concatenate(part)).astype(np.int64) for part in zip(*dealt, strict=True)]
