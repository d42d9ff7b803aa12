"""Checksums of the files of a folder, by which damage is found before they are read."""

import hashlib
import pathlib

Checksums = dict[str, tuple[int, str]]
"""From a file's path within the folder to its size in bytes and its SHA-256."""


def checksums(folder: pathlib.Path) -> Checksums:
    """The sizes and digests of all files of a folder, at any depth."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, _digest(path)) for path in files
    }


def damage(folder: pathlib.Path, known: Checksums) -> str | None:
    """What is wrong with the files of a folder, of the first that is not as it was; else None.

    Args:
        folder: the folder.
        known: its checksums when it was written. Files that came later do not matter.

    Raises:
        PermissionError: a file may not be read, which is no damage.
    """
    for name, (size, digest) in known.items():
        path = folder / name
        try:
            found = path.stat().st_size
            if found < size:
                return f"{name} is {f'cut off at {found} of {size} bytes' if found else 'empty'}"
            if found > size or _digest(path) != digest:
                return f"{name} has another content than was written"
        except PermissionError:
            raise
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
