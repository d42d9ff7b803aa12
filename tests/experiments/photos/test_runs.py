"""Runs on images that stay on the disk: both stages, kills in mid-epoch, what follows them."""

import csv
import pathlib
import socket
import zipfile

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from jax import export as jax_export

from experiments import evaluate
from experiments.export import export
from experiments.pictures.drawing import draw
from experiments.program.experiment import Experiment
from experiments.runs.directory import UNDERWAY, ConfigMismatchError
from experiments.runs.learned_weights import export_weights
from experiments.runs.open_run import Run
from experiments.runs.predictions import predictions, write_classifier
from experiments.runs.restoring import restore
from experiments.runs.training import train, train_together
from otrw_jax.data.builders.image_files import read_square
from otrw_jax.files import read_json
from otrw_jax.training.underway import Saver
from tests.data.builders.image_files import make_folder
from tests.experiments.photos.shared import COUNTS, STEPS, killed, small, start
from tests.experiments.shared import (
    Interrupted,
    history_of,
    lines_of,
    with_fields,
)

pytestmark = pytest.mark.usefixtures("rank_promotion")


@pytest.fixture(scope="module")
def experiment(place):
    return Experiment(small(place))


@pytest.fixture(scope="module")
def whole(experiment, place):
    """The directory and results of both stages, uninterrupted."""
    return place / "whole", train(experiment, place / "whole", 0, 0)


@pytest.fixture(scope="module")
def assert_as_whole(whole, experiment, final_state, assert_same_bits):
    """Asserts that a run has ended like the uninterrupted one, bit for bit."""
    wanted = final_state(experiment, whole[0])

    def check(workdir, results):
        assert results == whole[1]
        assert_same_bits(final_state(experiment, workdir), wanted)
        assert history_of(workdir) == history_of(whole[0])
        assert [record["number"] for record in lines_of(workdir)] == [1, 2, 3, 4]
        assert not saved(workdir)

    return check


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def saved(workdir):
    """Numbers of what is saved of an epoch."""
    return [int(path.name) for path in (workdir / UNDERWAY).glob("[0-9]*")]


def interrupted(experiment, runs, monkeypatch, at):
    """Trains until some steps of an epoch of the first run are done."""
    save = Saver.__call__

    def until(self, number, underway):
        save(self, number, underway)
        if (number, underway.done) == at:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "__call__", until)
        with pytest.raises(Interrupted):
            train_together(experiment, runs)


def test_both_stages_are_trained_on_images_that_stay_on_the_disk(whole, experiment):
    workdir, results = whole
    assert 0 <= results["last"]["error"] <= 100 and results["best_held_out"] is not None
    assert [r["stage"] for r in lines_of(workdir)] == ["stage1", "stage1", "stage2", "stage2"]
    assert {"ot_loss", "test", "held_out"} <= lines_of(workdir)[-1].keys()
    assert not saved(workdir)
    prepared, dataset = experiment.prepare(0), experiment.source.dataset
    split, images, ids = prepared.split, prepared.train, np.array([3, 0, 20])
    assert split.counts.tolist() == list(COUNTS) and len(split.meta) == len(split.held_out) == 6
    assert images.inputs.shape == (sum(COUNTS), 36, 36, 3)
    paths = dataset.train_inputs[split.train]
    for part, files, labels in (
        ("train", paths, images.labels),
        ("validation", dataset.train_inputs[split.meta], prepared.data.view.meta.labels),
        ("validation", dataset.train_inputs[split.held_out], prepared.held_out.labels),
        ("test", dataset.test_inputs, prepared.test.labels),
    ):
        for path, label in zip(files, np.asarray(labels), strict=True):
            assert path.name.startswith(f"{part}_{label}_")
    for examples, files in (
        (prepared.held_out, dataset.train_inputs[split.held_out]),
        (prepared.test, dataset.test_inputs),
    ):
        with examples.inputs.batches(np.arange(len(files)), len(files)) as read:
            np.testing.assert_array_equal(next(read), [read_square(path, 36) for path in files])
    squares = [read_square(path, 36) for path in paths[ids]]
    np.testing.assert_array_equal(prepared.stored(ids), squares)
    squares = [read_square(path, 36) for path in dataset.train_inputs[split.meta]]
    np.testing.assert_array_equal(prepared.data.view.meta.inputs.stored, squares)
    # On the device it lies once, as it is stored.
    assert prepared.data.raw_meta is prepared.data.view.meta


def test_a_killed_process_goes_on_bit_for_bit(place, experiment, tmp_path, assert_as_whole):
    killed(start(place, tmp_path, kill_at="1 2"))
    assert saved(tmp_path) == [STEPS + 2]
    assert [path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")] == ["1"]
    assert_as_whole(tmp_path, train(experiment, tmp_path, 0, 0))


def test_two_processes_equal_one_which_goes_on_where_they_were_killed(
    place, whole, experiment, tmp_path, final_state
):
    coordinator = f"--coordinator=localhost:{free_port()}"
    both = [
        start(
            *(place, tmp_path, coordinator, "--num_processes=2", f"--process_id={number}"),
            devices=1,
            kill_at="" if number else "1 2",
        )
        for number in range(2)
    ]
    try:
        killed(both[0])
    finally:
        both[1].kill()
        said = both[1].communicate()[0]
    assert saved(tmp_path) == [STEPS + 2], said
    train(experiment, tmp_path, 0, 0)
    assert [r["number"] for r in lines_of(tmp_path)] == [1, 2, 3, 4]
    for found, wanted in zip(lines_of(tmp_path), lines_of(whole[0]), strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-4)
    states = [final_state(experiment, folder) for folder in (tmp_path, whole[0])]
    for a, b in zip(*(jax.tree.leaves(state.variables) for state in states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_first_epoch_is_the_run_s_and_begins_anew_where_its_save_is_damaged(
    experiment, tmp_path, monkeypatch, assert_as_whole, capsys
):
    interrupted(experiment, [Run(tmp_path, 0, 0)], monkeypatch, (0, 2))
    other = with_fields(experiment, **{"stage1.optimizer.learning_rate": 0.02})
    with pytest.raises(ConfigMismatchError, match="holds a run of another config") as raised:
        train(other, tmp_path, 0, 0)
    assert "--extend" not in str(raised.value)  # There is no epoch yet to go on from.
    file = max((tmp_path / UNDERWAY).rglob("*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    capsys.readouterr()
    assert_as_whole(tmp_path, train(experiment, tmp_path, 0, 0))
    said = capsys.readouterr().out
    assert f"{tmp_path}: what is done of epoch 1 is damaged (" in said
    assert "; it begins anew.\n" in said


def test_the_first_of_two_seeds_goes_on_where_it_was(
    experiment, tmp_path, monkeypatch, assert_as_whole
):
    """The second has not begun, and is trained after it, not with it."""
    runs = [Run(tmp_path / f"seed_{seed}", seed, 0) for seed in range(2)]
    interrupted(experiment, runs, monkeypatch, (1, 2))
    results = train_together(experiment, runs)
    assert_as_whole(runs[0].workdir, results[0])
    assert [record["number"] for record in lines_of(runs[1].workdir)] == [1, 2, 3, 4]


def test_what_a_run_is_good_for_afterwards(whole, place, tmp_path):
    restored = restore(whole[0])
    names, paths = restored.source.dataset.class_names, restored.source.paths
    logits = restored.logits(restored.prepared.test.inputs)
    squares = np.stack([read_square(path, 36) for path in paths["test"]])
    np.testing.assert_array_equal(logits[:8], restored.logits(squares[:8]))
    made_of = predictions(restored, [str(path) for path in paths["test"][:3]])
    chances = np.asarray(jax.nn.softmax(logits, axis=-1))
    for at, row in enumerate(made_of.found):
        assert (row.file, row.name) == (str(paths["test"][at]), names[chances[at].argmax()])
        np.testing.assert_allclose(row.probability, chances[at].max(), rtol=1e-5)
    about = write_classifier(tmp_path / "classifier.zip", restored)
    assert (about["side"], about["crop"], about["classes"]) == (36, "center", list(names))
    with zipfile.ZipFile(tmp_path / "classifier.zip") as file:
        classify = jax_export.deserialize(bytearray(file.read("classify"))).call
    np.testing.assert_allclose(classify(squares[:2]), chances[:2], rtol=1e-4, atol=1e-6)
    export_weights(tmp_path / "weights.csv", restored)
    with (tmp_path / "weights.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows} == set(map(str, paths["train"]))
    assert all(row["label"] == pathlib.Path(row["id"]).parent.name for row in rows)


def test_a_run_is_evaluated_and_drawn(whole, experiment, tmp_path):
    names = experiment.source.dataset.class_names
    make_folder(tmp_path / "new", names[1:], 2, ("",))
    with flagsaver.flagsaver():
        evaluate.main(flags.FLAGS(["evaluate", f"--workdir={whole[0]}"]))
        evaluate.main(
            flags.FLAGS(["evaluate", f"--workdir={whole[0]}", f"--on={tmp_path / 'new'}"])
        )
    report = read_json(whole[0] / "evaluation.json")
    assert report["test"]["error"] == pytest.approx(whole[1]["last"]["error"], abs=1e-4)
    on = read_json(whole[0] / "evaluation_new.json")
    assert np.sum(on["confusion"], axis=1).tolist() == [0, 2, 2]
    names = ["confusion_matrices", "convergence", "class_weights", "transport"]
    assert [path.stem for path in draw(whole[0])] == names


def test_a_network_file_gives_the_first_stage(whole, experiment, tmp_path, assert_as_whole):
    about = export(whole[0], tmp_path / "network.safetensors")
    assert not {"data.folder", "model.weights", "save_every"} & about["config"].keys()
    results = train(experiment, tmp_path / "run", 0, 0, tmp_path / "network.safetensors")
    assert_as_whole(tmp_path / "run", results)
