"""Image files as a data set of runs: found, checked, and what is asked of every source of them."""

import abc
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from jaxtyping import Array, Shaped, UInt8
from ml_collections import ConfigDict
from rich.progress import track

from experiments.configs.kinds import LISTED
from experiments.program.parts import PartedSource
from otrw_jax.data.builders.image_folder import ImageFolder, load_image_folder
from otrw_jax.data.builders.long_tailed import load_long_tailed
from otrw_jax.data.builders.manual import SourceError
from otrw_jax.data.sources import data_root


class ImageFileSource(PartedSource, abc.ABC):
    """A data set whose examples are image files.

    Attributes:
        paths: of the files of each part.
        view: how a file becomes pixels: `side`, and `crop` or `resize`.
    """

    paths: dict[str, tuple[pathlib.Path, ...]]
    view: dict[str, int | str]

    @abc.abstractmethod
    def inputs(self, paths: Sequence[pathlib.Path]) -> Any:
        """Files as stored inputs, as the test part has its own: on the host, or on the disk.

        Raises:
            ImageError: one cannot be read.
        """

    @abc.abstractmethod
    def traced(self, pixels: UInt8[Array, "b s s 3"]) -> Shaped[Array, "b ..."]:
        """From pixels, as the view gives them, to stored inputs, within a compiled function."""


def find_images(data: ConfigDict) -> ImageFolder:
    """The images that `data` of a config names, all checked when they are first found.

    Raises:
        FileNotFoundError, SourceError: as `load_image_folder`, `load_long_tailed`.
    """
    root = data_root(data.data_dir or None)
    if data.name in LISTED:
        options = {"lists": data.lists or None, "max_excluded": data.max_excluded}
        return load_long_tailed(data.name, data.folder, root, watch=shown, **options)
    options = {"max_excluded": data.max_excluded, "test_share": data.test_share}
    return load_image_folder(data.folder, root, watch=shown, **options)


def check_folder(data: ConfigDict) -> None:
    """Asks for the folder where `data` of a config names none.

    Raises:
        SourceError: it names none.
    """
    if data.folder:
        return
    what = "a folder of class folders, or a table of images"
    if data.name in LISTED:
        what = "the folder from which the paths of the lists go on"
    raise SourceError(f"data.folder is empty; give --config.data.folder=DIR, {what}.")


def shown(items: Iterable, title: str, count: int) -> Iterable:
    """Shows how far an iterable is."""
    return track(items, title, total=count)
