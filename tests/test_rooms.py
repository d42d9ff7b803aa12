"""Imports between the folders of the library point one way, as docs/design.md says."""

import ast
import pathlib

import pytest

LIBRARY = pathlib.Path(__file__).parents[1] / "otrw_jax"
KNOWS = {
    "ot": {"checks", "losses", "ot"},
    "losses.py": {"checks"},
    "metrics.py": {"checks"},
    "posthoc.py": {"checks", "losses", "ot"},
    "models": {"checks", "extras", "models", "paths"},
    "data": {"checks", "data", "extras", "files"},
    "methods": {"checks", "losses", "methods", "metrics", "models", "ot", "paths", "samplers"},
    "samplers.py": {"checks", "methods"},
    "training": {"checks", "data", "files", "methods", "metrics", "models", "training"},
}
"""From a folder, or a file beside it, to what of the library it may import."""


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "otrw_jax":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("otrw_jax."):
            yield node.module.split(".")[1]


def test_every_folder_is_named():
    folders = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    assert folders == {name for name in KNOWS if not name.endswith(".py")}


@pytest.mark.parametrize("name", KNOWS)
def test_imports_point_one_way(name):
    place = LIBRARY / name
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        assert set(imports_of(path)) <= KNOWS[name], path


def test_weights_by_ot_need_nothing_of_the_methods_that_learn_on_a_meta_set():
    for path in (LIBRARY / "methods" / "ot").glob("*.py"):
        assert "otrw_jax.methods.meta" not in path.read_text(), path
