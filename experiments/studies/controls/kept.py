"""Cells of the controls that are done, on the disk, so that an interrupted command goes on."""

import pathlib

from otrw_jax.files import read_json, write_json


class KeptCells:
    """Groups of cells that are trained, and the seconds that they took."""

    def __init__(self, path: pathlib.Path, identity: dict):
        """Reads what is there.

        Args:
            path: of the file; it need not exist.
            identity: all that decides what the cells come to, by name; as JSON gives it back.

        Raises:
            ValueError: the file holds cells of something else, or is damaged.
        """
        self._path, self._identity = path, identity
        self._groups: dict[str, dict] = {}
        if path.exists():
            kept = read_json(path)
            of = kept.get("of", {})
            other = [name for name, value in identity.items() if of.get(name) != value]
            if other:
                raise ValueError(
                    f"{path} holds cells of other {' and '.join(other)}; choose another --workdir, "
                    "or delete that file to train its cells anew."
                )
            self._groups = kept["groups"]

    @property
    def cells(self) -> dict[str, dict]:
        """The results of all cells that are done, by name."""
        return {
            name: one for group in self._groups.values() for name, one in group["cells"].items()
        }

    @property
    def seconds(self) -> float:
        """How long they took together."""
        return sum(group["seconds"] for group in self._groups.values())

    def __contains__(self, group: object) -> bool:
        return group in self._groups

    def add(self, group: str, cells: dict[str, dict], seconds: float) -> None:
        """Keeps a group, on the disk before it returns."""
        self._groups[group] = {"seconds": seconds, "cells": cells}
        write_json(self._path, {"of": self._identity, "groups": self._groups})

    def finish(self) -> None:
        """Removes the file, once its cells are recorded elsewhere."""
        self._path.unlink(missing_ok=True)
