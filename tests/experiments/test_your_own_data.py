"""The commands of the page about data of one's own run in their order, on little of it."""

import csv
import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.cli import run_app
from tests.data.builders.image_files import make_folder

pytestmark = [
    pytest.mark.usefixtures("rank_promotion"),
    # By ml_collections, which loads the config file.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your_own_data.md").read_text()
COMMANDS = re.findall(r"^    python -m ((?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
# What keeps the runs small; only the sections that a run has are given.
SMALL = ("stage1.epochs=1", "stage1.batch_size=6", "data.meta_per_class=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory, data_dir):
    """Where `DIR`, `NEW` and `FEATURES` are, and what runs write."""
    del data_dir  # It has the libraries define their flags before a test restores them.
    root = tmp_path_factory.mktemp("own")
    make_folder(root / "DIR", ("cat", "dog"), 12, ("",))
    make_folder(root / "NEW", ("",), 2, ("",))
    (root / "FEATURES").mkdir()
    for seed, (part, count) in enumerate({"train": 12, "test": 4}.items()):
        labels = np.repeat([0, 1], count)
        noise = np.random.default_rng(seed).normal(size=(2 * count, 4))
        np.save(root / "FEATURES" / f"{part}_features.npy", labels[:, None] + 0.1 * noise)
        np.save(root / "FEATURES" / f"{part}_labels.npy", labels)
    return root


def call(command, place, monkeypatch):
    """Runs a command of the page where the folders are; returns what it exits with."""
    name, *arguments = shlex.split(command.replace("\\\n", " "))
    recipe = re.search(r"recipe=(\w+)", command)
    if recipe:
        section = f"stage2.{recipe[1]}"
        small = (*SMALL, f"{section}.epochs=1", f"{section}.batch_size=6")
        arguments += [f"--config.{field}" for field in small]
    if "image_folder.py" in command:
        arguments += ["--config.encoder.side=32", f"--config.data.data_dir={place / 'kept'}"]
    script = importlib.import_module(name)
    arguments = [a.replace("=experiments/", f"={ROOT}/experiments/") for a in arguments]
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        try:
            run_app(script.main, arguments=name.endswith("predict"))
        except SystemExit as end:
            return end.code
        finally:
            flags.FLAGS.mark_as_parsed()


def test_every_command_runs_and_leaves_what_the_page_says(place, monkeypatch, capsys):
    assert len(COMMANDS) == 9
    for command in COMMANDS:
        if "experiments.export" in command:
            continue
        assert call(command, place, monkeypatch) is None, command
    out = capsys.readouterr().out
    assert "the 2 classes are in the order of their names: cat, dog." in out
    assert "checking 24 images" in out and out.count("checking 24 images") == 1
    rows = {}
    for name in ("weights", "predictions", "weights_of_features"):
        with (place / f"{name}.csv").open(newline="") as file:
            rows[name] = list(csv.DictReader(file))
    assert {row["label"] for row in rows["weights"]} == {"cat", "dog"}
    assert all((place / row["id"]).is_file() for row in rows["weights"])
    assert [row["file"] for row in rows["predictions"]] == ["NEW/0.jpg", "NEW/1.jpg"]
    assert len(rows["weights_of_features"]) > 0
    for run in ("mine", "class_balanced", "features"):
        assert (place / "runs" / run / "results.json").is_file()
    assert (place / "runs" / "mine" / "confusion_matrices.png").is_file()


def test_the_classifier_in_one_file_says_what_the_run_does(place, monkeypatch, capsys):
    """By the program of the page, in a process that cannot import this project."""
    (export,) = (command for command in COMMANDS if "experiments.export" in command)
    assert (place / "runs" / "mine").is_dir(), "the commands before it have run"
    assert call(export, place, monkeypatch) is None
    assert "written: classifier.zip" in capsys.readouterr().out
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (place / "use.py").write_text(program)
    packages = [
        path for path in sys.path if path and not (pathlib.Path(path) / "otrw_jax").is_dir()
    ]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(packages))
    command = [sys.executable, "-S", "use.py", "classifier.zip", "NEW/0.jpg", "NEW/1.jpg"]
    found = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=True
    )
    lines = [line.split("\t") for line in found.stdout.splitlines()]
    with (place / "predictions.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert [line[:2] for line in lines] == [[row["file"], row["class"]] for row in expected]
    for line, row in zip(lines, expected, strict=True):
        assert abs(float(line[2]) - float(row["probability"])) < 1e-4


def test_without_what_classifiers_are_written_by_a_sentence_says_so(
    place, monkeypatch, capsys, whole_run
):
    export = "experiments.export --workdir=runs/mine --to=other.zip"
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    assert call(export, place, monkeypatch) == (
        "ModuleNotFoundError: flatbuffers is not installed; pip install 'otrw_jax[export]' brings "
        "it."
    )
    of_digits = call(export.replace("runs/mine", str(whole_run[0])), place, monkeypatch)
    assert of_digits.startswith("ValueError: the run is on digits; only those on a folder of")
    assert not (place / "other.zip").exists()


def test_what_the_page_says_of_fields_is_so():
    from experiments.configs import image_folder

    config = image_folder.get_config()
    for field in set(re.findall(r"`((?:data|encoder)\.\w+)", PAGE)):
        section, name = field.split(".")
        assert name in config[section], field
