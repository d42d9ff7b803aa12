"""Runs evaluated on other images and features in place of their test part."""

import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import evaluate
from experiments.cli import run_app
from experiments.configs import features
from experiments.program.experiment import Experiment
from experiments.runs.training import train
from otrw_jax.files import read_json
from tests.data.builders.image_files import make_folder
from tests.experiments.image_runs import CLASSES, small

pytestmark = pytest.mark.usefixtures("rank_promotion")


@pytest.fixture
def call(monkeypatch):
    """Calls the script as the command line would; returns what it exits with."""

    def script(workdir, place):
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            monkeypatch.setattr(sys, "argv", ["evaluate", f"--workdir={workdir}", f"--on={place}"])
            try:
                run_app(evaluate.main, "workdir")
            except SystemExit as end:
                return end.code
            finally:
                flags.FLAGS.mark_as_parsed()

    return script


def test_images_of_some_classes_and_of_one_that_the_run_lacks(call, tmp_path):
    make_folder(tmp_path / "mine", CLASSES, 6, ("train", "val", "test"))
    make_folder(tmp_path / "new", ("eel", "cat"), 2, ("",))
    make_folder(tmp_path / "foreign", ("cat", "fox"), 1, ("",))
    (tmp_path / "foreign" / "cat" / "0.jpg").write_bytes(b"no image")  # Classes are read first.
    run = tmp_path / "run"
    train(Experiment(small(tmp_path)), run, 0, 0)
    assert call(run, tmp_path / "new") is None
    found = read_json(run / "evaluation_new.json")
    assert np.sum(found["confusion"], axis=1).tolist() == [2, 0, 2]
    assert "test" in found and "held_out" not in found
    assert found["per_class_accuracy"][1] is None and found["on"] == str(tmp_path / "new")
    assert (run / "confusion_new.png").exists() and not (run / "evaluation.json").exists()
    assert call(run, tmp_path / "foreign") == (
        f"ValueError: {tmp_path / 'foreign'} has the classes fox, which the run does not have "
        "(cat, dog, eel); leave these out, or name them as the run does."
    )
    (tmp_path / "new" / "cat" / "0.jpg").write_bytes(b"no image")
    assert "1 files cannot be used" in call(run, tmp_path / "new")


def save(folder, part, labels, width=4):
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(len(part)).normal(size=(len(labels), width))
    np.save(folder / f"{part}_features.npy", (np.asarray(labels)[:, None] + 0.1 * noise))
    np.save(folder / f"{part}_labels.npy", labels)


def test_features_are_matched_by_the_names_of_their_classes(call, tmp_path, whole_run):
    for part in ("train", "test"):
        save(tmp_path / "mine", part, np.repeat([1, 2, 4], 8))
    config = features.get_config(f"recipe=ce,folder={tmp_path / 'mine'}")
    config.stage1.update({"epochs": 1, "batch_size": 8})
    config.data.meta_per_class = 2
    run = tmp_path / "run"
    train(Experiment(config), run, 0, 0)
    save(tmp_path / "new", "train", np.repeat([2, 4], 5))
    assert call(run, tmp_path / "new") is None
    rows = np.sum(read_json(run / "evaluation_new.json")["confusion"], axis=1)
    assert rows.tolist() == [0, 5, 5]
    save(tmp_path / "new", "test", np.repeat([2, 4], 3))
    assert call(run, tmp_path / "new") is None
    rows = np.sum(read_json(run / "evaluation_new.json")["confusion"], axis=1)
    assert rows.tolist() == [0, 3, 3]
    (tmp_path / "later").mkdir()
    save(tmp_path / "later" / "new", "train", np.repeat([1, 2], 4))
    for _ in range(2):
        assert call(run, tmp_path / "later" / "new") is None
    kept = sorted(run.glob("evaluation_new*.json"))
    assert [read_json(path)["on"] for path in kept] == [
        str(tmp_path / "new"),
        str(tmp_path / "later" / "new"),
    ]
    assert len(list(run.glob("confusion_new*.png"))) == 2
    save(tmp_path / "foreign", "train", np.repeat([2, 3], 3))
    assert "has the classes 3, which the run does not have (1, 2, 4)" in call(
        run, tmp_path / "foreign"
    )
    save(tmp_path / "wide", "train", np.repeat([2, 4], 3), 5)
    assert "has features of 5 numbers and the run's have 4" in call(run, tmp_path / "wide")
    assert call(run, tmp_path / "none").startswith("FileNotFoundError")
    text = call(whole_run[0], tmp_path / "new")
    assert text.startswith("ValueError: the run is on digits; --on is for runs on a folder of")
