"""Predictions of image files by a run, as the command line gives them."""

import csv
import io
import shutil
import sys

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import predict
from experiments.cli import run_app
from experiments.program.experiment import Experiment
from experiments.runs.restoring import restore
from experiments.runs.training import train
from tests.data.builders.image_files import cut_off, make_folder, save
from tests.experiments.image_runs import CLASSES, small

pytestmark = pytest.mark.usefixtures("rank_promotion")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a run, and of its images."""
    root = tmp_path_factory.mktemp("images")
    make_folder(root / "mine", CLASSES, 6, ("train", "test"))
    train(Experiment(small(root)), root / "run", 0, 0)
    return root / "run", root / "mine"


@pytest.fixture
def call(monkeypatch, run):
    """Calls the script as the command line would; returns what it exits with."""

    def script(*arguments):
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            monkeypatch.setattr(sys, "argv", ["predict", f"--workdir={run[0]}", *arguments])
            try:
                run_app(predict.main, "workdir", arguments=True)
            except SystemExit as end:
                return end.code
            finally:
                flags.FLAGS.mark_as_parsed()

    return script


def test_the_table_has_what_the_network_says_of_each_file(run, call, capsys):
    workdir, images = run
    assert call(str(images / "test"), str(images / "train/dog/0.jpg")) is None
    out = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(out)))
    expected = [*sorted(map(str, (images / "test").glob("*/*"))), str(images / "train/dog/0.jpg")]
    assert [row["file"] for row in rows] == expected
    restored = restore(workdir)
    chances = jax.nn.softmax(restored.logits(restored.prepared.test.inputs), axis=-1)
    for row, of_classes in zip(rows, np.asarray(chances), strict=False):
        assert row["class"] == CLASSES[of_classes.argmax()]
        np.testing.assert_allclose(float(row["probability"]), of_classes.max(), atol=1e-5)


def test_the_table_goes_to_a_file_and_odd_names_are_quoted(call, tmp_path, capsys):
    odd = tmp_path / "odd" / 'кошка, "one".PNG'
    save(odd)
    assert call(f"--table={tmp_path / 'table.csv'}", str(odd)) is None
    with (tmp_path / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == str(odd) and row["class"] in CLASSES
    assert f"written: {tmp_path / 'table.csv'}, 1 files" in capsys.readouterr().out


def test_what_cannot_be_read_is_refused_or_left_out_within_the_limit(run, call, tmp_path, capsys):
    folder = shutil.copytree(run[1] / "test" / "cat", tmp_path / "new")
    cut_off(folder / "0.jpg")
    assert call(str(folder)) == (
        f"ValueError: 1 of 6 files cannot be used ('{folder / '0.jpg'}' is damaged or cut off); "
        "mend or remove them, or allow max_excluded=1."
    )
    assert capsys.readouterr().out == ""
    assert call("--max_excluded=1", str(folder)) is None
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 6
    assert f"left out: '{folder / '0.jpg'}' is damaged or cut off" in captured.err
    assert call("--max_excluded=1", str(folder / "0.jpg")).endswith("mend or remove them.")


def test_nothing_to_predict_and_runs_of_other_data(call, tmp_path, whole_run):
    (tmp_path / "empty").mkdir()
    table = tmp_path / "table.parquet"
    said = call(f"--table={table}", str(tmp_path / "empty"))
    assert said == f"ValueError: --table={table}: predictions are written as CSV; name a .csv."
    assert call().startswith("ValueError: no file is given; name image files, or a folder of")
    assert "there is no file in what is given" in call(str(tmp_path / "empty"))
    text = call(f"--workdir={whole_run[0]}", str(tmp_path))
    assert text.startswith("ValueError: the run is on digits; only those on a folder of images")
