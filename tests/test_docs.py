"""The reference has every public name; that it can be built is what `make docs` is for."""

import importlib
import itertools
import pathlib
import re

import pytest
import yaml

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


def test_the_rooms_of_the_design_are_those_of_the_tree():
    text = (ROOT / "docs" / "design.md").read_text()
    listing = re.search(r"## The rooms\n\n(.*?)\n\n", text, re.DOTALL)[1].splitlines()
    folders, paths = [], []
    for line in listing:
        depth = (len(line) - len(line.lstrip())) // 2 - 2
        for name in re.findall(r"[\w]+(?:\.py|/)(?= |$)", line):
            paths.append(ROOT.joinpath(*folders[:depth], name))
        if line.split()[0].endswith("/"):
            folders[depth:] = [line.split()[0]]
    assert len(paths) > 40 and [path for path in paths if not path.exists()] == []


def test_the_way_from_the_script_to_the_loss_is_that_of_the_imports():
    text = (ROOT / "docs" / "design.md").read_text()
    section = text.split("## From the script to the loss")[1].split("## ")[0]
    files = re.findall(r"^    ([\w/]+)\.py ", section, re.MULTILINE)
    assert len(files) == 8
    for one, following in itertools.pairwise(files):
        package, _, name = following.removesuffix("/__init__").replace("/", ".").rpartition(".")
        imports = f"from {package}.{name} import |from {package} import .*\\b{name}\\b"
        assert re.search(imports, (ROOT / f"{one}.py").read_text()), (one, following)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/index.md"])
def test_files_that_a_page_names_exist(page):
    text, folder = (ROOT / page).read_text(), (ROOT / page).parent
    named = [folder / name for name in re.findall(r"\]\(([^)#]+)\)", text)]
    files = re.findall(r"`((?:otrw_jax|experiments|tests|docs)/[\w/]+\.?\w*/?)`", text)
    named += [ROOT / name for name in files]
    named += [folder / f"{name}.md" for name in re.findall(r"^(?:api/)?\w+$", text, re.MULTILINE)]
    assert named and [str(path) for path in named if not path.exists()] == []


def test_one_version_is_cited():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == otrw_jax.__version__
    assert f"\n## {otrw_jax.__version__} " in (ROOT / "CHANGELOG.md").read_text()
    authors = [author["family-names"] for author in cited["preferred-citation"]["authors"]]
    assert all(f"{name}, " in (ROOT / "README.md").read_text() for name in authors)
