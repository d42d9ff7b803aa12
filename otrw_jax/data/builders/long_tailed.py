"""ImageNet-LT, Places-LT and iNaturalist 2018: images in folders by lists that others published.

Classes are the numbers of the lists, never the order of folders. Records are written as those of a
folder of images (`image_folder.py`): paths and labels, after every image has been read once.
"""

import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from otrw_jax.checks import check_number, nearest
from otrw_jax.data.builders.image_folder import ImageFolder, ImageFolderBuilder, Watch, load_listing
from otrw_jax.data.builders.image_lists import PARTS, Listed, Listing
from otrw_jax.data.builders.manual import SourceError
from otrw_jax.data.builders.published_lists import read_list


class Published(NamedTuple):
    """What was published of a data set.

    Attributes:
        title: its name.
        lists: of each part, what the file of its list may be called.
        images: of each part, how many.
        classes: K.
        largest: training images of the largest class.
        smallest: of the smallest.
    """

    title: str
    lists: Mapping[str, tuple[str, ...]]
    images: Mapping[str, int]
    classes: int
    largest: int
    smallest: int


def _oltr(stem: str) -> dict[str, tuple[str, ...]]:
    names = {"train": "train", "validation": "val", "test": "test"}
    return {part: (f"{stem}_{name}.txt",) for part, name in names.items()}


LONG_TAILED = {
    "imagenet_lt": Published(
        "ImageNet-LT",
        _oltr("ImageNet_LT"),
        {"train": 115_846, "validation": 20_000, "test": 50_000},
        *(1000, 1280, 5),
    ),
    "places_lt": Published(
        "Places-LT",
        _oltr("Places_LT"),
        {"train": 62_500, "validation": 7_300, "test": 36_500},
        *(365, 4980, 5),
    ),
    # Of its test part no labels were published: the validation list is what is tested on.
    "inaturalist2018": Published(
        "iNaturalist 2018",
        {
            "train": ("iNaturalist18_train.txt", "train2018.json"),
            "test": ("iNaturalist18_val.txt", "val2018.json"),
        },
        {"train": 437_513, "test": 24_426},
        *(8142, 1000, 2),
    ),
}
"""Name to what was published: Z. Liu et al., Large-scale long-tailed recognition in an open world,
CVPR 2019, the first two; G. Van Horn et al., The iNaturalist species classification and detection
dataset, CVPR 2018."""


def _builder(of: str) -> type[ImageFolderBuilder]:
    class Builder(ImageFolderBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS's.
        name = of

    return Builder


BUILDERS = {name: _builder(name) for name in LONG_TAILED}


def load_long_tailed(
    name: str,
    folder: str | os.PathLike,
    data_dir: str | os.PathLike,
    *,
    lists: str | os.PathLike | None = None,
    max_excluded: int = 0,
    watch: Watch | None = None,
) -> ImageFolder:
    """The images of a data set, checked; where they were before, without reading them again.

    Args:
        name: one of `LONG_TAILED`.
        folder: from which the lists' paths go on, such as `train/n01440764/n01440764_190.JPEG`.
        data_dir: TFDS's data folder, to which the records are written.
        lists: the folder with the lists; by default that of the images.
        max_excluded: so many files may be left out that are missing, damaged or no images.
        watch: shows how far the check is.

    Raises:
        FileNotFoundError: there is no such folder, or a list is not in its folder.
        SourceError: as `list_long_tailed` and `make_image_list`; nothing has been written.
        ValueError: the name is unknown, or `max_excluded` is out of range.
        OSError: the records cannot be written.
    """
    check_number("load_long_tailed", "max_excluded", max_excluded, least=0, whole=True)
    listing = list_long_tailed(name, folder, lists)
    return load_listing(
        listing, data_dir, builder=BUILDERS[name], max_excluded=max_excluded, watch=watch
    )


def list_long_tailed(
    name: str, folder: str | os.PathLike, lists: str | os.PathLike | None = None
) -> Listing:
    """Lists the images of a data set without reading them.

    A class is called as the folder that all its training images lie in, below what all paths share,
    where each class has one of its own, as `n01440764` or `Plantae/7291`; else by the names of JSON
    annotations where these differ; else by its number. Where a path of a list leads to no file, the
    same file right in its top folder is taken, as `val/ILSVRC2012_val_00000001.JPEG`, if no two
    files of the lists in that folder have one name: so are ImageNet's validation images when they
    are unpacked.

    Raises:
        FileNotFoundError: as `load_long_tailed`.
        SourceError: a list is malformed or empty, its training classes are not numbered without
            gaps, or another part has a further class. A ValueError.
        ValueError: the name is unknown.
    """
    if name not in LONG_TAILED:
        near = nearest(name, LONG_TAILED)
        raise ValueError(
            f"unknown data set {name!r}; did you mean {near!r}? There are {', '.join(LONG_TAILED)}."
        )
    published, root = LONG_TAILED[name], pathlib.Path(folder).expanduser()
    place = pathlib.Path(lists).expanduser() if lists else root
    for path in (root, place):
        if not path.is_dir():
            raise FileNotFoundError(
                f"{path} is no folder; give that of the images of {published.title}, and, where "
                "they lie elsewhere, that of its lists."
            )
    files = {part: _file(place, names) for part, names in published.lists.items()}
    rows, named = {}, {}
    for part, file in files.items():
        rows[part], named[part] = read_list(file)
        if not rows[part]:
            raise SourceError(f"{file} lists no image; get it anew.")
    classes = _number_of_classes(files, rows)
    names = _class_names(rows["train"], named["train"], classes)
    crowded = _crowded({path for listed in rows.values() for path, _ in listed})
    images = tuple(
        Listed(_where(root, path, crowded), names[label], part)
        for part in PARTS
        if part in rows
        for path, label in rows[part]
    )
    return Listing(root, images, (), tuple(_notes(published, rows, classes)), names)


def _file(place: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
    for name in names:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(
        f"{place} has no {' or '.join(names)}; put the published lists there, or name their folder "
        "(data.lists)."
    )


def _number_of_classes(files: Mapping[str, pathlib.Path], rows: Mapping[str, list]) -> int:
    found = {part: {label for _, label in listed} for part, listed in rows.items()}
    classes = len(found["train"])
    gaps = sorted(set(range(classes)) - found["train"])
    if gaps:
        raise SourceError(
            f"{files['train']} has classes to {max(found['train'])} and none of class {gaps[0]}; "
            "they must be numbered from 0 without gaps: get it anew."
        )
    for part, labels in found.items():
        if max(labels) >= classes:
            raise SourceError(
                f"{files[part]} has class {max(labels)}, and the {classes} classes of "
                f"{files['train']} end at {classes - 1}; take lists of one data set."
            )
    return classes


def _class_names(
    rows: Sequence[tuple[str, int]], named: Mapping[int, str], classes: int
) -> tuple[str, ...]:
    folders: list[set[tuple[str, ...]]] = [set() for _ in range(classes)]
    for path, label in rows:
        folders[label].add(tuple(path.split("/")[:-1]))
    of_class = [next(iter(found)) for found in folders]
    if all(len(found) == 1 for found in folders) and len(set(of_class)) == classes > 1:
        ends = zip(min(of_class), max(of_class), strict=False)
        shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], ends)))
        own = tuple("/".join(parts[shared:]) for parts in of_class)
        if all(own):
            return own
    own = tuple(named.get(label, "") for label in range(classes))
    return own if all(own) and len(set(own)) == classes else tuple(map(str, range(classes)))


def _crowded(paths: set[str]) -> set[str]:
    """Top folders in which two files of the lists have one name."""
    counts = Counter((path.partition("/")[0], path.rpartition("/")[2]) for path in paths)
    return {top for (top, _), count in counts.items() if count > 1}


def _where(root: pathlib.Path, path: str, crowded: set[str]) -> str:
    """Where a file lies, from the root on; one that is nowhere is left to be told of."""
    top, last = path.partition("/")[0], path.rpartition("/")[2]
    if path.count("/") < 2 or top in crowded or os.path.exists(os.path.join(root, path)):
        return path
    flat = f"{top}/{last}"
    return flat if os.path.exists(os.path.join(root, flat)) else path


def _notes(published: Published, rows: Mapping[str, list], classes: int) -> Iterator[str]:
    counts = Counter(label for _, label in rows["train"]).values()
    found = {part: len(listed) for part, listed in rows.items()}, classes, max(counts), min(counts)
    sizes = " / ".join(f"{len(rows[part]):,}" for part in rows)
    told = (
        f"{sizes} images ({', '.join(rows)}) of {classes:,} classes, {max(counts):,} to "
        f"{min(counts):,} training images a class"
    )
    if found == (published.images, published.classes, published.largest, published.smallest):
        yield f"the lists have the numbers that were published: {told}."
    else:
        yield f"the lists are not those of {published.title} as published: {told}."
    if "validation" not in rows:
        yield (
            "there is no validation part: the validation list is what is tested on, as in the "
            "published results, so that no checkpoint may be chosen by it."
        )
