"""Paths of a config and of flags, with the user's home in the place of `~`."""

import os
import pathlib

from ml_collections import ConfigDict


def expand_paths(config: ConfigDict) -> None:
    """Puts the user's home in the place of `~` in the paths of a config.

    Raises:
        ValueError: there is no such user.
    """
    parts = {"data": ("data_dir", "manual_dir"), "encoder": ("folder",)}
    places = [
        (config[part], name)
        for part, names in parts.items()
        if part in config
        for name in names
        if name in config[part]
    ]
    for section, name in [(config, "stage1_from"), *places]:
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
