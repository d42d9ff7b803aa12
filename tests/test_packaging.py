"""The wheel: what it holds, what it asks for, and that this is enough for the README's example."""

import email
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = ("LICENSE", "README.md", "pyproject.toml", "requirements.txt", "setup.cfg")
LIBRARY = ROOT / "otrw_jax"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout, which building does not write to."""
    copy, built = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in PROJECT:
        shutil.copy(ROOT / name, copy)
    for name in ("experiments", "otrw_jax", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", built)
    run([sys.executable, "-m", "pip", "wheel", *options, copy], cwd=copy)
    (path,) = built.iterdir()
    return path


@pytest.fixture(scope="session")
def bare_python(wheel, tmp_path_factory):
    """A Python that sees the wheel, and of this environment only what the wheel asks for."""
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", folder])
    python = folder / "bin" / "python"
    site = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in needed(requirements(wheel)):
        link(importlib.metadata.distribution(name), pathlib.Path(site))
    return python


def run(command, **options):
    """What a command prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def requirements(wheel):
    """What a wheel asks for, its extras among it."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    return [Requirement(text) for text in metadata.get_all("Requires-Dist")]


def needed(wanted, extras=("",)):
    """The names of all distributions that requirements bring, from what is installed here."""
    found, open_ = set(), [(r, extra) for r in wanted for extra in extras]
    while open_:
        requirement, extra = open_.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for inner in ("", *requirement.extras):
            if (key := (requirement.name.lower().replace("_", "-"), inner)) not in found:
                found.add(key)
                texts = importlib.metadata.requires(requirement.name) or []
                open_ += [(Requirement(text), inner) for text in texts]
    return sorted({name for name, _ in found})


def link(distribution, site):
    """Links a distribution's files into a folder, top by top."""
    tops = {file.parts[0] for file in distribution.files if file.parts[0] != ".."}
    for top in tops - {"__pycache__"}:
        if not (site / top).exists():
            os.symlink(distribution.locate_file(top).resolve(), site / top)


def in_bare(python, *arguments, code=0):
    """What the bare Python prints, or what it says as it fails, away from the checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [python, "-W", "error", *arguments]
    done = subprocess.run(
        command, cwd=python.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def test_the_wheel_holds_the_library_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [path for path in LIBRARY.rglob("*") if path.suffix in (".py", ".typed")]
    assert names == {path.relative_to(ROOT).as_posix() for path in files}


def test_the_example_runs_on_what_the_wheel_asks_for(bare_python):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    program = f"""
import sys, otrw_jax
early = {{"equinox", "jaxopt", "orbax", "ott", "scipy", "tensorstore"}} & set(sys.modules)
assert not early, early
{code}
z, y = jnp.eye(4, 8), jnp.arange(4) % 3
loss, weights = weighted_loss(jnp.full(4, 0.25), z, jnp.zeros((4, 3)), y, z, y)
import otrw_jax.training.checkpoints
print(otrw_jax.__file__, float(loss), float(weights.sum()))
"""
    path, loss, total = in_bare(bare_python, "-c", program).split()
    assert bare_python.parents[1] in pathlib.Path(path).parents
    assert float(loss) == pytest.approx(1.0986, abs=1e-3) and float(total) == pytest.approx(1)


def test_a_missing_package_is_named_with_its_extra(bare_python):
    modules = {
        "otrw_jax.data.sources": ("tensorflow_datasets", "data"),
        "otrw_jax.data.builders.cifar": ("tensorflow_datasets", "data"),
        "otrw_jax.data.word_pieces": ("tokenizers", "text"),
        "otrw_jax.sklearn": ("sklearn", "sklearn"),
    }
    program = f"""
import importlib
for name in {list(modules)}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(error)
"""
    assert in_bare(bare_python, "-c", program).splitlines() == [
        f"{package} is not installed; pip install 'otrw_jax[{extra}]' brings it."
        for package, extra in modules.values()
    ]


def test_scripts_name_what_is_missing_in_a_sentence(bare_python):
    said = in_bare(bare_python, "-m", "otrw_jax.data.sources", "digits", code=1)
    assert said == "tensorflow_datasets is not installed; pip install 'otrw_jax[data]' brings it.\n"
    shutil.copytree(ROOT / "experiments", bare_python.parent / "experiments")
    said = in_bare(bare_python, "-m", "experiments.train", code=1)
    assert re.fullmatch(
        r"\w+ is not installed; pip install -e '.\[experiments\]' brings it.\n", said
    )


def test_requirements_are_the_core_and_the_extras_of_the_scripts(wheel):
    """`requirements.txt` says again, with the same bounds, what setup.cfg says of the library."""
    lines = (ROOT / "requirements.txt").read_text().split()
    for extra in ("", "data", "text"):
        for requirement in requirements(wheel):
            marker = str(requirement.marker or "")
            if marker == (f'extra == "{extra}"' if extra else ""):
                text = f"{requirement.name}{requirement.specifier}"
                assert any(Requirement(line) == Requirement(text) for line in lines), text
