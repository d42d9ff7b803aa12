"""Arrays of features and labels as files hold them: .npy, .npz, .safetensors and Parquet."""

import pathlib
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from otrw_jax.extras import brought_by

PARTS = ("train", "test", "meta", "validation")
NAMES = tuple(f"{part}_{kind}" for part in PARTS for kind in ("features", "labels"))
CLASS_NAMES = "class_names"
LAYOUT = (
    "a folder with train_features.npy, train_labels.npy, test_features.npy and test_labels.npy, or "
    "with train.npz (.safetensors, .parquet) and test.npz that hold features and labels, or one "
    "such file with train_features, train_labels, …"
)


class ReadArray(NamedTuple):
    """An array, and where it was found, as messages have it."""

    values: Shaped[np.ndarray, "..."]
    where: str


class Found(NamedTuple):
    """What is stored in a place.

    Attributes:
        arrays: by their names of `NAMES`, those that there are.
        class_names: one a class, with where they were found; or None.
        notes: what was decided, a sentence each.
    """

    arrays: dict[str, ReadArray]
    class_names: ReadArray | None
    notes: tuple[str, ...]


def read_files(place: pathlib.Path) -> Found:
    """Reads what a folder or a file holds of features, labels and class names.

    Arrays of .npy are memory-mapped, the others read. Nothing is ever unpickled.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: a file cannot be read, an array is there twice, or nothing is.
    """
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist; give {LAYOUT}.")
    arrays: dict[str, ReadArray] = {}
    aside: list[str] = []
    notes: list[str] = []
    for name, stored in (
        _in_folder(place, aside, notes) if place.is_dir() else _in_file(place, notes)
    ):
        if name in arrays:
            raise ValueError(
                f"{stored.where} holds {name}, and so does {arrays[name].where}; delete one."
            )
        arrays[name] = stored
    if aside:
        notes.append(f"{place}: {', '.join(aside)} left aside, being of no part's name.")
    class_names = arrays.pop(CLASS_NAMES, None)
    if not arrays:
        raise ValueError(f"{place} holds no features; give {LAYOUT}.")
    return Found(arrays, class_names, tuple(notes))


def _in_folder(folder, aside, notes) -> Iterator[tuple[str, ReadArray]]:
    for path in sorted(folder.iterdir()):
        if path.name == f"{CLASS_NAMES}.txt":
            yield CLASS_NAMES, ReadArray(_lines(path), str(path))
        elif path.suffix == ".npy" and path.stem in (*NAMES, CLASS_NAMES):
            yield path.stem, ReadArray(_npy(path), str(path))
        elif path.suffix in READERS and path.stem in PARTS:
            for name, stored in READERS[path.suffix](path, notes):
                known = name in ("features", "labels")
                yield (f"{path.stem}_{name}" if known else name), stored
        elif path.suffix in (".npy", *READERS):
            aside.append(path.name)


def _in_file(path, notes) -> Iterator[tuple[str, ReadArray]]:
    if path.suffix == ".npy":
        raise ValueError(
            f"{path} is one array, and features without labels are no data set; give {LAYOUT}."
        )
    if path.suffix not in READERS:
        raise ValueError(f"{path} is of no format that is read here; give {LAYOUT}.")
    yield from READERS[path.suffix](path, notes)


def _npy(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _unreadable(path, error) from error


def _npz(path: pathlib.Path, notes: list[str]) -> Iterator[tuple[str, ReadArray]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("it is a .npy file by another name.")
            arrays = {name: stored[name] for name in stored.files if _is_known(name)}
            others = [name for name in stored.files if not _is_known(name)]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    yield from _named(path, arrays, others, notes)


def _safetensors(path: pathlib.Path, notes: list[str]) -> Iterator[tuple[str, ReadArray]]:
    with brought_by("weights", __name__):
        import safetensors
    try:
        with safetensors.safe_open(path, framework="numpy") as stored:
            names = list(stored.keys())
            arrays = {name: stored.get_tensor(name) for name in names if _is_known(name)}
            listed = (stored.metadata() or {}).get(CLASS_NAMES)
    except (safetensors.SafetensorError, OSError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(path, error) from error
    if listed is not None:
        arrays[CLASS_NAMES] = np.array(listed.splitlines(), str)
    yield from _named(path, arrays, [name for name in names if not _is_known(name)], notes)


def _parquet(path: pathlib.Path, notes: list[str]) -> Iterator[tuple[str, ReadArray]]:
    from otrw_jax.data.feature_tables import read_table  # Needs pyarrow.

    yield from _named(path, read_table(path, notes), [], notes)


READERS = {".npz": _npz, ".safetensors": _safetensors, ".parquet": _parquet}


def _named(path, arrays, others, notes) -> Iterator[tuple[str, ReadArray]]:
    if others:
        notes.append(f"{path}: {', '.join(others)} left aside, being of no part's name.")
    if not arrays:
        raise ValueError(f"{path} holds no array named features or labels; give {LAYOUT}.")
    for name, values in arrays.items():
        yield name, ReadArray(values, f"{path} ({name})")


def _is_known(name: str) -> bool:
    return name in (*NAMES, CLASS_NAMES, "features", "labels")


def _lines(path: pathlib.Path) -> np.ndarray:
    try:
        return np.array(path.read_text(encoding="utf-8-sig").rstrip().splitlines(), str)
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8; write it so, a class a line.") from error


def _unreadable(path: pathlib.Path, error: Exception) -> ValueError:
    said = " ".join(str(error).split()).rstrip(".")
    if "pickle" in said or "Python objects" in said:
        return ValueError(
            f"{path} holds an array of Python objects, or is no file of its suffix; it is never "
            "unpickled: write arrays of numbers or of text."
        )
    return ValueError(
        f"{path} is cut off, or no {path.suffix} file: write it anew ({type(error).__name__}: "
        f"{said[:160]})."
    )
