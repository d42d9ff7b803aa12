"""Folders, tables, lists of images as TFDS datasets whose records hold paths, without re-encoding.

All images are read once before anything is written. A record's number is its place in the list,
so that the number of examples, and of their weights, is fixed before any of them has a number.
"""

import concurrent.futures
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32

from otrw_jax.checks import check_number
from otrw_jax.data.builders.image_classes import ImageList, check_faults, make_image_list
from otrw_jax.data.builders.image_files import ImageError, checked, without_warnings
from otrw_jax.data.builders.image_lists import PARTS, Listing, list_images
from otrw_jax.data.builders.preparation import prepare

NAME = "image_folder"
THREADS = 8
Watch = Callable[[Iterable, str, int], Iterable]
"""Gives what an iterable of so many items gives, and shows how far it is, under a title."""


class ImageFolder(NamedTuple):
    """Images on the disk, with their classes.

    Attributes:
        paths: of each part that there is, by name; `train` and `test` among them.
        labels: their classes, in 0..K-1.
        class_names: one for each of the K classes.
        fingerprint: of content, classes and parts.
        notes: what was decided, a sentence each.
    """

    paths: dict[str, tuple[pathlib.Path, ...]]
    labels: dict[str, Int32[np.ndarray, "n"]]
    class_names: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...]


class _Config(tfds.core.BuilderConfig):
    """A builder's config by the name of a list; the list where it is yet to be written."""

    def __init__(self, name: str, images: ImageList | None = None):
        super().__init__(name=name, description="A folder or table of images.")
        self.images = images


class ImageFolderBuilder(  # type: ignore[call-arg]  # TFDS reads the argument, and has no types.
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Records of `path`, from the folder on, and `label`, in the order of the list."""

    name = NAME
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        given = self.builder_config.images
        metadata, label = None, tfds.features.ClassLabel()
        if given is not None:
            label = tfds.features.ClassLabel(names=given.class_names)
            metadata = tfds.core.MetadataDict(
                fingerprint=given.fingerprint, notes=given.notes, excluded=given.excluded
            )
        return tfds.core.DatasetInfo(
            builder=self,
            description="A folder or table of images.",
            features=tfds.features.FeaturesDict({"path": tfds.features.Text(), "label": label}),
            disable_shuffling=True,
            metadata=metadata,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        images = self.builder_config.images.images
        parts = {image.listed.part for image in images}
        return {part: self._generate_examples(part) for part in PARTS if part in parts}

    def _generate_examples(self, part):
        images = [i.listed for i in self.builder_config.images.images if i.listed.part == part]
        for number, image in enumerate(images):
            yield number, {"path": image.path, "label": image.label}


def load_image_folder(
    place: str | os.PathLike,
    data_dir: str | os.PathLike,
    *,
    max_excluded: int = 0,
    test_share: float = 0.2,
    watch: Watch | None = None,
) -> ImageFolder:
    """The images of a folder or table, checked; where they were before, without reading them again.

    Args:
        place: as `list_images` reads it.
        data_dir: TFDS's data folder, to which the records are written under a name of the images'
            paths, classes, sizes and times.
        max_excluded: so many files may be left out that are missing, damaged or no images.
        test_share: of each class, what is taken for testing where there is no test part; in (0, 1).
        watch: shows how far the check is.

    Raises:
        FileNotFoundError, ModuleNotFoundError: as `list_images`.
        ValueError: `max_excluded` or `test_share` is out of range.
        SourceError: as `list_images` and `make_image_list`; nothing has been written.
        OSError: the records cannot be written.
    """
    check_number("load_image_folder", "max_excluded", max_excluded, least=0, whole=True)
    check_number("load_image_folder", "test_share", test_share, above=0, below=1)
    return load_listing(
        list_images(place), data_dir, max_excluded=max_excluded, test_share=test_share, watch=watch
    )


def load_listing(
    listing: Listing,
    data_dir: str | os.PathLike,
    *,
    builder: type[ImageFolderBuilder] = ImageFolderBuilder,
    max_excluded: int = 0,
    test_share: float = 0.2,
    watch: Watch | None = None,
) -> ImageFolder:
    """The images of a listing, as `load_image_folder` has those of a folder.

    Args:
        listing: of images that are yet to be read.
        data_dir: as there, with the next.
        builder: of the data set.
        max_excluded: as there, with the next two.
        test_share: as there.
        watch: as there.

    Raises:
        SourceError: as `make_image_list`; nothing has been written.
        OSError: the records cannot be written.
    """
    root, name = pathlib.Path(data_dir).expanduser(), _name(listing, test_share)
    folder = root / builder.name / name / str(builder.VERSION)
    if not folder.exists():
        images = _read(listing, max_excluded, test_share, watch)
        prepare(builder(data_dir=root, config=_Config(name, images)), folder, root, root)
    written = _records(builder, root, name)  # type: ignore[arg-type]  # A class has a hash.
    check_faults(listing, written.excluded, max_excluded)
    paths = {
        part: tuple(listing.root / path for path in found) for part, found in written.paths.items()
    }
    notes = (*written.notes, *_of_excluded(written.excluded))
    labels = dict(written.labels)  # What is kept of the records stays as it is.
    return ImageFolder(paths, labels, written.class_names, written.fingerprint, notes)


class _Written(NamedTuple):
    """What the records of a listing say, its paths from the listing's folder on."""

    paths: dict[str, tuple[str, ...]]
    labels: dict[str, Int32[np.ndarray, "n"]]
    class_names: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...]
    excluded: tuple[str, ...]


@functools.lru_cache(maxsize=4)
def _records(builder: type[ImageFolderBuilder], root: pathlib.Path, name: str) -> _Written:
    """Reads records; in a process once, since of a large set it takes long."""
    written = builder(data_dir=root, config=_Config(name))
    paths, labels = {}, {}
    for part in written.info.splits:
        source = written.as_data_source(part)
        records = source.__getitems__(range(len(source)))
        paths[part] = tuple(record["path"].decode() for record in records)
        labels[part] = np.array([record["label"] for record in records], np.int32)
        labels[part].setflags(write=False)  # They are shared.
    about, names = written.info.metadata, tuple(written.info.features["label"].names)
    decided = tuple(about["notes"]), tuple(about["excluded"])
    return _Written(paths, labels, names, about["fingerprint"], *decided)


def _of_excluded(excluded: tuple[str, ...]) -> Iterator[str]:
    if excluded:
        more = "; …" if len(excluded) > 10 else ""
        yield f"files left out: {len(excluded)} ({'; '.join(excluded[:10])}{more})."


def _name(listing: Listing, test_share: float) -> str:
    """Changes with paths, classes, parts, and the files' sizes, times and whether they open."""
    digest = hashlib.sha256(repr((test_share, listing.strays)).encode())
    if listing.class_names is not None:
        digest.update(repr(listing.class_names).encode())
    for image in listing.images:
        path = listing.root / image.path
        try:
            status = os.stat(path)
            state = status.st_size, status.st_mtime_ns
        except OSError:
            state = None
        if state and not os.access(path, os.R_OK):
            state = None
        digest.update(repr((*image, state)).encode())
    return digest.hexdigest()[:32]


def _read(listing: Listing, max_excluded: int, test_share: float, watch: Watch | None) -> ImageList:
    """Reads every image of a listing, and makes the list of those that can be read."""
    found = check_files([listing.root / image.path for image in listing.images], watch)
    faults = [f"{path!r} stands in no class folder" for path in listing.strays]
    faults += [
        f"{image.path!r} is {fault}"
        for image, (_, fault) in zip(listing.images, found, strict=True)
        if fault
    ]
    digests = [digest for digest, _ in found]
    return make_image_list(listing, digests, faults, max_excluded, test_share)


def check_files(
    paths: Sequence[pathlib.Path], watch: Watch | None = None
) -> list[tuple[str | None, str]]:
    """Reads image files as a whole: of each its SHA-256, or None and why it cannot be used."""
    with without_warnings(), concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        outcomes: Iterable = pool.map(_outcome, paths)
        if watch is not None:
            outcomes = watch(outcomes, f"checking {len(paths)} images", len(paths))
        return list(outcomes)


def _outcome(path: pathlib.Path) -> tuple[str | None, str]:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return None, "of a name that is no UTF-8"
    try:
        return checked(path), ""
    except ImageError as error:
        return None, error.fault
