"""The reference has every public name; that it can be built is what `make docs` is for."""

import importlib
import pathlib
import re

import otrw_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
MODULES = re.findall(r"automodule:: (\S+)", PAGES)


def test_the_reference_has_every_public_name():
    documented = {
        id(value)
        for module in map(importlib.import_module, MODULES)
        for name, value in vars(module).items()
        if name in getattr(module, "__all__", ())
        or getattr(value, "__module__", None) == module.__name__
    }
    assert [n for n in otrw_jax.__all__ if id(getattr(otrw_jax, n)) not in documented] == []


def test_the_reference_has_every_backbone():
    files = (ROOT / "otrw_jax" / "models" / "backbones").glob("[a-z]*.py")
    assert {f"otrw_jax.models.backbones.{file.stem}" for file in files} <= set(MODULES)
