"""Imports between the rooms of the experiments point one way, and no room or file grows large."""

import ast
import collections
import pathlib

import pytest

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
ABOVE = ("recipes", "configs", "program", "cli", "runs", "studies", "documents")
"""Rooms in the order in which they may import: each those before it."""
OUTER = ("pictures", "benchmarks")
"""Rooms that may import those, and not each other; only the scripts import them."""
ROOMS = (*ABOVE, *OUTER)


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def rooms_of(path):
    parts = (name.split(".") for name in imports_of(path))
    return {name[1] for name in parts if name[0] == "experiments" and len(name) > 1}


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in EXPERIMENTS.glob("*/__init__.py")}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_between_rooms_point_one_way(room):
    allowed = {room, *(ABOVE if room in OUTER else ABOVE[: ABOVE.index(room)])}
    for path in (EXPERIMENTS / room).rglob("*.py"):
        assert rooms_of(path) <= allowed, path


@pytest.mark.parametrize("tree", ["experiments", "otrw_jax"])
def test_a_folder_has_at_most_fourteen_modules_of_at_most_320_lines(tree):
    modules = collections.defaultdict(list)
    for path in (EXPERIMENTS.parent / tree).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 320, path
        if path.name != "__init__.py":
            modules[path.parent].append(path.name)
    assert {folder: names for folder, names in modules.items() if len(names) > 14} == {}
