"""Long-tailed subsets of a balanced training set, with a meta set and a held-out set."""

import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

PROFILES = ("exponential", "step")


class Split(NamedTuple):
    """Disjoint parts of a training set, as sorted int64 indices into it.

    Attributes:
        train: [n], the long-tailed training examples.
        meta: [m], the small balanced set that guides the weights.
        held_out: [v], balanced too, for the choice of a checkpoint; often empty.
        counts: [K], the number of training examples of each class.
    """

    train: Int[np.ndarray, "n"]
    meta: Int[np.ndarray, "m"]
    held_out: Int[np.ndarray, "v"]
    counts: Int[np.ndarray, "k"]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the subset: a SHA-256 over the three index lists."""
        digest = hashlib.sha256()
        for part in (self.train, self.meta, self.held_out):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(np.asarray(part, dtype="<i8").tobytes())
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
                "or held_out_per_class"
            )
    if largest is None:
        largest = int(sizes.min()) - meta_per_class
    counts = long_tailed_counts(len(sizes), largest, imbalance_factor, profile)
    for c in np.flatnonzero(counts > sizes - meta_per_class)[:1]:
        raise ValueError(
            f"class {c} is to have {counts[c]} training examples, but {sizes[c]} less "
            f"{meta_per_class} meta examples are all there are; lower `largest`, now {largest}"
        )
    counts = np.minimum(counts, sizes - reserved)

    rng = np.random.default_rng(seed)
    meta, held_out, train = [], [], []
    for c, count in enumerate(counts):
        ids = rng.permutation(np.flatnonzero(labels == c))
        meta.append(ids[:meta_per_class])
        held_out.append(ids[meta_per_class:reserved])
        train.append(ids[reserved : reserved + count])
    return Split(*(_sorted_ids(part) for part in (train, meta, held_out)), counts)


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
        raise ValueError(f"profile is {profile!r}; it must be one of {', '.join(PROFILES)}")
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; a profile needs at least 2 classes")
    if largest < 1:
        raise ValueError(f"largest is {largest}; the largest class needs at least 1 example")
    if not imbalance_factor >= 1:
        raise ValueError(
            f"imbalance_factor is {imbalance_factor}; it must be at least 1: the largest class "
            "count over the smallest, for example 100"
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
            f"{imbalance_factor}; lower imbalance_factor to at most {largest}"
        )
    return counts


def _check_per_class(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 0:
            raise ValueError(f"{name} is {number}; it must be 0 or more")


def _class_sizes(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels have shape {labels.shape} and dtype {labels.dtype}; "
            "a non-empty vector of integers is needed"
        )
    if labels.min() < 0:
        raise ValueError(f"a label is {labels.min()}; labels must be class numbers from 0 on")
    sizes = np.bincount(labels)
    for c in np.flatnonzero(sizes == 0)[:1]:
        raise ValueError(
            f"class {c} has no example, though labels reach {len(sizes) - 1}; "
            "number the classes without gaps"
        )
    return sizes.astype(np.int64)


def _sorted_ids(parts: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate(parts)).astype(np.int64)
