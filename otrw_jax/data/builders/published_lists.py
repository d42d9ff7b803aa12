"""List files of images: a line `path label` each, or JSON annotations as iNaturalist gives them."""

import json
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from otrw_jax.data.builders.manual import SourceError

JSON = ".json"


def read_list(file: pathlib.Path) -> tuple[list[tuple[str, int]], dict[int, str]]:
    """The images of a list, and names of classes where it has them.

    A text file has a line `path label` for each image. Blanks in a path, and at its beginning, are
    part of it, and empty lines are none. A .json file has `images` with `id` and `file_name`,
    `annotations` with `image_id` and `category_id`, and `categories` with `id` and `name`.

    Returns:
        Pairs of a path and a class's number, from 0 on, in the order of the lines or annotations;
        and names by number, none for a text file.

    Raises:
        SourceError: it is no UTF-8 or no JSON, a line or an entry is not of this form, or an image
            or an id is listed twice; the file and the place are named. A ValueError.
    """
    if file.suffix == JSON:
        return _read_json(file)
    found, first = [], dict[str, int]()
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        path, _, label = line.rstrip().rpartition(" ")
        path = path.rstrip(" ")
        if not path or not (label.isascii() and label.isdecimal()):
            raise SourceError(
                f"{file}, line {number}: {line[:120]!r} is no path followed by a blank and the "
                "number of a class, from 0 on; mend it."
            )
        if first.setdefault(path, number) != number:
            raise SourceError(
                f"{file}, line {number}: {path} is listed in line {first[path]} already; list each "
                "image once."
            )
        found.append((path, int(label)))
    return found, {}


def _text(file: pathlib.Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file} is no text in UTF-8: {error}.") from error


def _read_json(file: pathlib.Path) -> tuple[list[tuple[str, int]], dict[int, str]]:
    try:
        content = json.loads(_text(file))
    except ValueError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{file} is no JSON, or cut off: {error}.") from error
    names = _by_id(file, content, "categories", "name")
    paths = _by_id(file, content, "images", "file_name")
    if len(set(paths.values())) < len(paths):
        twice, _ = Counter(paths.values()).most_common(1)[0]
        raise SourceError(f"{file}: {twice} is listed under two ids; list each image once.")
    found, seen = [], set()
    for image, label in _pairs(file, content, "annotations", "image_id", "category_id"):
        if image not in paths or image in seen or type(label) is not int or label < 0:
            raise SourceError(
                f"{file}: the annotation of image {image!r} has category {label!r}; each must be "
                "the only one of an image that is listed, and its category a number from 0 on."
            )
        seen.add(image)
        found.append((paths[image], label))
    return found, names


def _by_id(file: pathlib.Path, content: Any, part: str, other: str) -> dict[Any, Any]:
    """A field of each entry of a part of JSON annotations, by the entry's id."""
    found = dict[Any, Any]()
    for one, value in _pairs(file, content, part, "id", other):
        if one in found:
            raise SourceError(
                f"{file}: two entries of {part!r} have the id {one!r}; give each its own."
            )
        found[one] = value
    return found


def _pairs(
    file: pathlib.Path, content: Any, part: str, one: str, other: str
) -> Iterator[tuple[Any, Any]]:
    """Two fields of each entry of a part of JSON annotations."""
    entries = content.get(part) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise SourceError(
            f"{file} has no list {part!r}; give annotations with images, annotations, categories."
        )
    wanted = {"name": str, "file_name": str}.get(other)
    for number, entry in enumerate(entries):
        fits = isinstance(entry, dict) and one in entry and other in entry
        if not fits or (wanted and not isinstance(entry[other], wanted)):
            raise SourceError(
                f"{file}: entry {number} of {part!r} lacks {one} or {other}; mend it."
            )
        try:
            hash(entry[one])
        except TypeError as error:
            raise SourceError(
                f"{file}: {one} of entry {number} of {part!r} is no number or text; mend it."
            ) from error
        yield entry[one], entry[other]
