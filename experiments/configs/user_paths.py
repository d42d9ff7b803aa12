"""Paths of a config and of flags, with the user's home in the place of `~`."""

import os
import pathlib

from ml_collections import ConfigDict

from experiments.configs.kinds import (
    BY_COUNTS,
    ENCODED,
    IMAGE_FOLDERS,
    LISTED,
    SENTENCES,
    is_streamed,
    place_field,
)


def expand_paths(config: ConfigDict) -> None:
    """Puts the user's home in the place of `~` in the paths of a config.

    Raises:
        ValueError: there is no such user.
    """
    places = [(config, "stage1_from"), (config.data, place_field(config.data.name))]
    if config.data.name in BY_COUNTS:
        places.append((config.data, "manual_dir"))
    if config.data.name in SENTENCES:
        places.append((config.encoder, "folder"))
    if config.data.name in IMAGE_FOLDERS:
        places.append((config.data, "data_dir"))
    if config.data.name in LISTED:
        places.append((config.data, "lists"))
    if config.data.name in (*IMAGE_FOLDERS, *ENCODED):
        network = config.model if is_streamed(config) else config.encoder
        places.append((network, "weights"))
    for section, name in places:
        if section[name]:
            section[name] = expanded(section[name], name)


def expanded(path: str | os.PathLike, name: str) -> str:
    """A path with the user's home in the place of `~`.

    Args:
        path: such as ~/runs.
        name: of the field or flag that it is given by.

    Raises:
        ValueError: there is no such user.
    """
    try:
        return str(pathlib.Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{name} is {str(path)!r}, and there is no such user.") from error
