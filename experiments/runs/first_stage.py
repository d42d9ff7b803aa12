"""Whether a run's first stage is another's, so that it can be taken over."""

import pathlib

from ml_collections import ConfigDict

from experiments.recipes import RECIPES
from experiments.runs.directory import read_config
from experiments.runs.extending import other_first_stage
from experiments.runs.identity import HOW, portable
from experiments.runs.network_files import is_network_file, read_about


def differing_first_stage(one: pathlib.Path | dict, other: pathlib.Path | dict) -> list[str]:
    """Names of the fields in which the first stages of two runs differ.

    Args:
        one: a run directory, a network file, or a config as `portable` gives it.
        other: likewise.
    """
    if _extended_otherwise(one):
        return ["its rates, by an extension"]
    found, wanted = (_portable_config_of(path) for path in (one, other))
    parts = ("data.", "encoder.", "model.", "stage1.", "seed", "subset_seed")
    recipes = found["recipe"], wanted["recipe"]
    if len({RECIPES[name].first or name for name in recipes}) > 1:
        return ["recipe"]
    # Of a recipe with a second stage the options concern that.
    parts += tuple(f"options.{name}." for name in recipes if RECIPES[name].second is None)
    return [
        name
        for name in sorted(found.keys() | wanted.keys())
        if name.startswith(parts) and name not in HOW and found.get(name) != wanted.get(name)
    ]


def _extended_otherwise(path: pathlib.Path | dict) -> bool:
    is_run = not isinstance(path, dict) and not is_network_file(path)
    return is_run and other_first_stage(read_config(path))


def _portable_config_of(path: pathlib.Path | dict) -> dict:
    if isinstance(path, dict):
        return path
    if is_network_file(path):
        return read_about(path)["config"]
    return portable(ConfigDict(read_config(path)))
