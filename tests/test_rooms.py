"""Imports between the folders of the library point one way, as docs/design.md says."""

import ast
import pathlib
import re

import pytest

LIBRARY = pathlib.Path(__file__).parents[1] / "otrw_jax"
KNOWS = {
    "classes.py": {"checks"},
    "ot": {"checks", "classes", "losses", "ot"},
    "losses.py": {"checks", "classes"},
    "metrics.py": {"checks", "classes"},
    "posthoc.py": {"checks", "losses", "ot"},
    "models": {"checks", "extras", "models", "paths"},
    "data": {"checks", "data", "extras", "files"},
    "methods": {"checks", "classes", "losses", "methods", "models", "ot", "paths", "samplers"},
    "samplers.py": {"checks", "classes", "methods"},
    "training": {"checks", "data", "files", "methods", "metrics", "models", "paths", "training"},
}
"""From a folder, or a file beside it, to what of the library it may import."""


def imports_of(path):
    """What stands after `otrw_jax.` in the names that a file imports, whichever way."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(LIBRARY.parent).parts[: -node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        for top, _, rest in (name.partition(".") for name in names):
            if top == "otrw_jax":
                yield rest.split(".")[0]


@pytest.mark.parametrize(
    "line",
    [
        "import otrw_jax.training.loop",
        "import numpy, otrw_jax.training as t",
        "from otrw_jax import training",
        "from otrw_jax.training import loop",
        "from ..training.loop import make_loop",
        "from .. import training",
    ],
)
def test_every_way_of_importing_is_seen(line, monkeypatch):
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path: line)
    assert list(imports_of(LIBRARY / "ot" / "costs.py")) == ["training"]
    assert list(imports_of(LIBRARY / "ot" / "__init__.py")) == ["training"]


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


def test_the_design_names_every_room():
    design = (LIBRARY.parent / "docs" / "design.md").read_text()
    rooms = design.split("## The rooms")[1].split("    experiments/")[0]
    for path in LIBRARY.rglob("__init__.py"):
        assert f"{path.parent.name}/ " in rooms or path.parent == LIBRARY, path
    for path in LIBRARY.glob("[a-z]*.py"):
        assert path.name in rooms, path


def test_the_design_names_who_reads_safetensors():
    root = LIBRARY.parent
    design = (root / "docs" / "design.md").read_text().split("## The rooms")[1]
    found = [
        path.relative_to(root).as_posix().removeprefix("otrw_jax/")
        for tree in ("otrw_jax", "experiments")
        for path in (root / tree).rglob("*.py")
        if re.search(r"^ *import safetensors", path.read_text(), re.MULTILINE)
    ]
    assert found and all(f"`{name}`" in design for name in found), found
