"""Files that a user gives: TFDS's folder of manual downloads, and what may lie in it."""

import pathlib
import zipfile
from collections.abc import Iterator

import tensorflow_datasets as tfds

Folder = pathlib.Path | zipfile.Path


class SourceError(ValueError):
    """A file that a dataset is to be made of is there, but cannot be used."""


def folders(place: pathlib.Path, names: tuple[str, ...]) -> Iterator[Folder]:
    """The folders among a place and some paths within it, zip archives among them.

    An archive counts as a folder, and so does each folder at its top.

    Args:
        place: a folder or an archive; it need not exist.
        names: paths of folders or archives within `place`.
    """
    for path in (place, *(place / name for name in names)):
        if path.is_dir():
            yield path
        elif zipfile.is_zipfile(path):
            root = zipfile.Path(path)
            yield root
            yield from (child for child in root.iterdir() if child.is_dir())


def given_or_downloaded(
    builder: tfds.core.DatasetBuilder, dl_manager: tfds.download.DownloadManager
) -> Folder:
    """The folder with a builder's files: the user's, else that of the official archive.

    Args:
        builder: has `archive_url`, and `find(place)`, which gives the folder with its files at
            or in a place, or None.
        dl_manager: TFDS's download manager.

    Raises:
        SourceError: the archive holds no such files.
    """
    try:
        found = builder.find(pathlib.Path(dl_manager.manual_dir))
    except AssertionError:  # TFDS: the folder is absent or empty.
        found = None
    if found is not None:
        return found
    archive = pathlib.Path(dl_manager.download(builder.archive_url))
    found = builder.find(archive)
    if found is None:
        raise SourceError(
            f"{archive}, from {builder.archive_url}, is no archive of {builder.name}; delete it."
        )
    return found
