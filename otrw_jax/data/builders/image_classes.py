"""Images that can be read, their classes numbered, and their parts: what a data set is made of."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from otrw_jax.checks import some
from otrw_jax.data.builders.image_lists import Listed, Listing
from otrw_jax.data.builders.manual import SourceError


class Image(NamedTuple):
    """An image of a data set.

    Attributes:
        listed: its path, class and part.
        digest: SHA-256 of the file.
    """

    listed: Listed
    digest: str


class ImageList(NamedTuple):
    """Images that can all be read; an image's number is its place among those of its part.

    Attributes:
        images: in the order of `PARTS`.
        class_names: one for each of the K classes, in their order.
        excluded: files that were left out, and why, a line each.
        notes: what was decided, a sentence each.
    """

    images: tuple[Image, ...]
    class_names: tuple[str, ...]
    excluded: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name content, classes and parts: the same wherever it lies."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for (path, label, part), content in self.images:
            digest.update("\0".join((path, label, part, content, "")).encode())
        return digest.hexdigest()[:16]


def make_image_list(
    listing: Listing,
    digests: Sequence[str | None],
    faults: Sequence[str],
    max_excluded: int,
    test_share: float,
) -> ImageList:
    """Leaves out what cannot be read, within a limit, and numbers the classes.

    The classes are those of the training part: in the order that the listing gives, else of their
    numbers where all names are whole numbers, else of their names by code points. Where no image
    is of the test part, a share of each class's training images becomes it: those whose SHA-256 is
    smallest, so that copies stay together and further images move few.

    Args:
        listing: the images.
        digests: of each, or None where it cannot be read.
        faults: what cannot be used, and why, a line each.
        max_excluded: so many may be left out.
        test_share: as above.

    Raises:
        SourceError: there are more faults; there are fewer than two classes; another part has a
            class without training image, the test or meta part lacks a class; a name begins or
            ends with a blank or has a line break; or a class is too small to give test images.
    """
    check_faults(listing, faults, max_excluded)
    images = tuple(
        Image(listed, digest)
        for listed, digest in zip(listing.images, digests, strict=True)
        if digest is not None
    )
    notes = list(listing.notes)
    names = _ordered({image.listed.label for image in images if image.listed.part == "train"})
    _check_classes(listing, images, names)
    if not any(image.listed.part == "test" for image in images):
        images = _with_test_part(images, names, test_share)
        count = sum(image.listed.part == "test" for image in images)
        notes.append(
            f"there is no test part: {count} training images become it, {test_share:.0%} of each "
            "class, the same under every seed."
        )
    numbers = all(name.isdecimal() for name in names)
    order = "their numbers" if numbers else "their names"
    if listing.class_names is not None:
        names, order = listing.class_names, "the lists"
    notes.append(f"the {len(names)} classes are in the order of {order}: {some(names)}.")
    notes += _copies(images)
    return ImageList(images, names, tuple(faults), tuple(notes))


def check_faults(listing: Listing, faults: Sequence[str], max_excluded: int) -> None:
    """Raises a SourceError where more files cannot be used than may be left out.

    Args:
        listing: the images.
        faults: what cannot be used, and why, a line each.
        max_excluded: so many may be left out.
    """
    if len(faults) > max_excluded:
        raise SourceError(
            f"{listing.root}: {len(faults)} of {len(listing.images) + len(listing.strays)} files "
            f"cannot be used ({some(faults, 10, '; ')}), and {max_excluded} may be left out; mend "
            f"or remove them, or allow max_excluded={len(faults)}."
        )


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    found = sorted(names)
    if all(name.isdecimal() for name in found):
        found.sort(key=int)
    return tuple(found)


def _check_classes(listing: Listing, images: tuple[Image, ...], names: tuple[str, ...]) -> None:
    for name in names:
        if name != name.strip() or len(name.splitlines()) != 1:
            raise SourceError(
                f"{listing.root}: the class {name!r} begins or ends with a blank, or has a line "
                "break; rename it."
            )
    gone = {i.label for i in listing.images if i.part == "train"} - set(names)
    if gone:
        raise SourceError(
            f"{listing.root}: no training image of {some(sorted(gone))} can be used; give some, "
            "or leave the class out."
        )
    if len(names) < 2:
        raise SourceError(
            f"{listing.root} has training images of {len(names)} class{'' if names else 'es'}"
            f"{_in_brackets(names)}; a classifier needs two or more."
        )
    for part in ("validation", "meta", "test"):
        found = {image.listed.label for image in images if image.listed.part == part}
        foreign = found - set(names)
        if foreign:
            count = sum(i.listed.label in foreign for i in images if i.listed.part == part)
            raise SourceError(
                f"{listing.root}: {count} images of the {part} part are of classes without "
                f"training image ({some(sorted(foreign))}); leave these out, or give training "
                "images of them."
            )
        if found and part != "validation" and len(found) < len(names):
            lacking = [name for name in names if name not in found]
            raise SourceError(
                f"{listing.root}: {len(lacking)} of {len(names)} classes have no image in the "
                f"{part} part ({some(lacking)}); give each class some there."
            )


def _with_test_part(
    images: tuple[Image, ...], names: tuple[str, ...], share: float
) -> tuple[Image, ...]:
    """The images with some of the training part moved behind all others."""
    chosen = set[str]()
    of_class: dict[str, list[str]] = {name: [] for name in names}
    for image in images:
        if image.listed.part == "train":
            of_class[image.listed.label].append(image.digest)
    for name, unsorted in of_class.items():
        digests = sorted(unsorted)
        count = max(round(share * len(digests)), 1)
        if len(set(digests)) < 2 or digests[count - 1] == digests[-1]:
            raise SourceError(
                f"class {name} has {len(digests)} images, too few different ones to take some for "
                f"testing ({share:.0%}); give more, or a test part."
            )
        chosen |= {f"{name}\0{digest}" for digest in digests[:count]}

    def of_test(image: Image) -> bool:
        label, part = image.listed.label, image.listed.part
        return part == "train" and f"{label}\0{image.digest}" in chosen

    moved = [i._replace(listed=i.listed._replace(part="test")) for i in images if of_test(i)]
    return (*(image for image in images if not of_test(image)), *moved)


def _copies(images: tuple[Image, ...]) -> list[str]:
    """What is to be said of files of one content."""
    notes, parts = [], dict[str, set[str]]()
    counts = Counter(image.digest for image in images)
    more = sum(counts.values()) - len(counts)
    if more:
        notes.append(f"{more} images are copies of others, byte for byte.")
    for image in images:
        parts.setdefault(image.digest, set()).add(image.listed.part)
    leaked = sum("test" in found and len(found) > 1 for found in parts.values())
    if leaked:
        notes.append(f"{leaked} images of the test part are in another part too; it flatters.")
    return notes


def _in_brackets(names: Sequence[str]) -> str:
    return f" ({some(names)})" if names else ""
