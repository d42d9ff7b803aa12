"""Lists of images with their classes and parts: of a folder of class folders, or of a table."""

import csv
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from otrw_jax.data.builders.manual import SourceError
from otrw_jax.data.tables import check_columns, read_parquet

PARTS = ("train", "validation", "meta", "test")
"""The parts of a data set, in the order of its list."""
FOLDERS = {"train": "train", "val": "validation"} | {part: part for part in PARTS[1:]}
"""What the folders of parts, and the values of a column `split`, are called."""
TABLES = (".csv", ".parquet")
SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".avif"}
SYSTEM = {"thumbs.db", "desktop.ini"}


class Listed(NamedTuple):
    """An image of a list.

    Attributes:
        path: from the list's folder on, or absolute.
        label: the name of its class.
        part: one of `PARTS`.
    """

    path: str
    label: str
    part: str


class Listing(NamedTuple):
    """Images before any of them is read.

    Attributes:
        root: the folder from which paths go on.
        images: by part, in the order of their paths, or of the table's rows.
        strays: paths of images that stand in no class folder.
        notes: what was decided, a sentence each.
        class_names: in the order of the classes, where the lists decide it.
    """

    root: pathlib.Path
    images: tuple[Listed, ...]
    strays: tuple[str, ...]
    notes: tuple[str, ...]
    class_names: tuple[str, ...] | None = None


def list_images(place: str | os.PathLike) -> Listing:
    """Lists images without reading them.

    A folder holds a folder for each class, or `train`, `val` (or `validation`), `test` and `meta`
    with a folder for each class in each. All files below a class folder are its images, but for
    hidden ones and those of the system's own; links are followed, a folder once. A table, a .csv
    or .parquet file, has columns `path`, from the table's folder on, `label`, and optionally
    `split`, with the names above; without, all are of the training part.

    Raises:
        FileNotFoundError: there is no such place.
        ModuleNotFoundError: a Parquet file, without pyarrow.
        SourceError: it is neither, cannot be read, or lists no image; a row lacks a path or label,
            or has a path that another has; a part is unknown or there twice. A ValueError.
    """
    place = pathlib.Path(place).expanduser()
    if place.is_dir():
        listing = _of_folder(place)
    elif not place.exists():
        raise FileNotFoundError(
            f"{place} does not exist; give a folder of class folders, or a table of images."
        )
    elif place.suffix.lower() in TABLES:
        listing = _of_table(place)
    else:
        raise SourceError(
            f"{place} is neither a folder nor a table of images that ends in {' or '.join(TABLES)}."
        )
    if not listing.images:
        raise SourceError(
            f"{place} lists no image; give a folder with a folder of images for each class, or a "
            "table with columns path and label."
        )
    images = tuple(sorted(listing.images, key=lambda image: PARTS.index(image.part)))
    return listing._replace(images=images)


def _of_folder(root: pathlib.Path) -> Listing:
    inside = {path.name: path for path in _visible(root) if path.is_dir()}
    parts = {name: FOLDERS[name.lower()] for name in inside if name.lower() in FOLDERS}
    if parts and len(parts) == len(inside) and "train" not in parts.values():
        raise SourceError(f"{root} has {', '.join(parts)} and no train; give training images.")
    if "train" not in parts.values():
        return _of_parts(root, {"": "train"})
    others = sorted(set(inside) - set(parts))
    if others:
        raise SourceError(
            f"{root} has {', '.join(parts)} and also {', '.join(others[:8])}; give either folders "
            "of parts or folders of classes."
        )
    if len(set(parts.values())) < len(parts):
        raise SourceError(
            f"{root} has {', '.join(sorted(parts))}, two of which are one part; keep one of them."
        )
    return _of_parts(root, parts)


def _of_parts(root: pathlib.Path, parts: dict[str, str]) -> Listing:
    images, strays, notes = [], [], []
    tops = {root, *(root / folder for folder in parts)}
    for top in sorted(tops):
        files = [path for path in _visible(top) if not path.is_dir()]
        strays += [path for path in files if path.suffix.lower() in SUFFIXES]
    for folder, part in parts.items():
        for inside in _visible(root / folder):
            if not inside.is_dir():
                continue
            found = files_below(inside)
            if not found:
                notes.append(f"{inside.relative_to(root)} is empty, and left out.")
            paths = [os.path.relpath(path, root) for path in found]
            images += [Listed(path, inside.name, part) for path in paths]
    return Listing(
        root, tuple(images), tuple(str(p.relative_to(root)) for p in strays), tuple(notes)
    )


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    """What is in a folder, in order, without what is hidden or the system's own."""
    try:
        inside = list(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from error
    return sorted(
        path for path in inside if not path.name.startswith(".") and path.name.lower() not in SYSTEM
    )


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files in a folder and its folders, in order, without hidden ones; links are followed."""
    return sorted(_below(folder, set()))


def _below(folder: pathlib.Path, seen: set[str]) -> Iterator[pathlib.Path]:
    """The files in a folder and its folders, each of which is entered once."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for path in _visible(folder):
        if path.is_dir():
            yield from _below(path, seen)
        else:
            yield path


def _of_table(path: pathlib.Path) -> Listing:
    read = _rows_of_csv if path.suffix.lower() == ".csv" else _rows_of_parquet
    try:
        columns, rows = read(path)
        check_columns(path, columns)
    except ValueError as error:
        raise SourceError(str(error)) from error
    if not {"path", "label"} <= set(columns):
        raise SourceError(
            f"{path} has the columns {', '.join(map(str, columns))}; give path and label, and "
            "optionally split."
        )
    notes, first, images = [], dict[str, int](), []
    others = [name for name in columns if name not in ("path", "label", "split")]
    if others:
        notes.append(f"{path.name}: the columns {', '.join(others)} are left aside.")
    for number, row in rows:
        image = _listed(f"{path}, row {number}", row)
        if image.path in first:
            raise SourceError(
                f"{path}, row {number}: {image.path} is listed in row {first[image.path]} already; "
                "list each image once."
            )
        first[image.path] = number
        images.append(image)
    return Listing(path.parent, tuple(images), (), tuple(notes))


def _listed(where: str, row: dict) -> Listed:
    for name in ("path", "label"):
        if row.get(name) in (None, ""):
            raise SourceError(f"{where}: there is no {name}; give one, or leave the row out.")
    if None in row or None in row.values():
        raise SourceError(f"{where}: it has more or fewer cells than the first row; mend it.")
    split = str(row.get("split", "train"))
    if split.lower() not in FOLDERS:
        raise SourceError(f"{where}: split is {split!r}; it must be one of {', '.join(FOLDERS)}.")
    return Listed(os.path.normpath(str(row["path"])), str(row["label"]), FOLDERS[split.lower()])


def _unreadable(path: pathlib.Path, error: OSError) -> SourceError:
    return SourceError(f"{path} cannot be read ({error.strerror or error}); allow it, or move it.")


def _rows_of_csv(path: pathlib.Path) -> tuple[list[str], list[tuple[int, dict]]]:
    """The columns, and each row by its number in the file, from one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            return list(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise _unreadable(path, error) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise SourceError(f"{path} is no CSV file in UTF-8: {error}.") from error


def _rows_of_parquet(path: pathlib.Path) -> tuple[list[str], list[tuple[int, dict]]]:
    table = read_parquet(path)
    wanted = [name for name in ("path", "label", "split") if name in table.column_names]
    return table.column_names, list(enumerate(table.select(wanted).to_pylist(), start=1))
