"""Runs on images that stay on the disk: both stages, kills in mid-epoch, what follows them."""

import numpy as np
import pytest

from experiments.program.experiment import Experiment
from experiments.runs.directory import UNDERWAY, ConfigMismatchError
from experiments.runs.training import train
from otrw_jax.data.builders.image_files import read_square
from otrw_jax.training.underway import Saver
from tests.experiments.photos.shared import COUNTS, STEPS, killed, small, start
from tests.experiments.shared import Interrupted, history_of, lines_of, with_fields

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


def saved(workdir):
    """Numbers of what is saved of an epoch."""
    return [int(path.name) for path in (workdir / UNDERWAY).glob("[0-9]*")]


def interrupted(experiment, workdir, monkeypatch, at):
    """Trains until some steps of an epoch are done."""
    save = Saver.__call__

    def until(self, number, underway):
        save(self, number, underway)
        if (number, underway.done) == at:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "__call__", until)
        with pytest.raises(Interrupted):
            train(experiment, workdir, 0, 0)


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
    for path, label in zip(paths, np.asarray(images.labels), strict=True):
        assert path.name.startswith(f"train_{label}_")
    squares = [read_square(path, 36) for path in paths[ids]]
    np.testing.assert_array_equal(prepared.stored(ids), squares)
    squares = [read_square(path, 36) for path in dataset.train_inputs[split.meta]]
    np.testing.assert_array_equal(prepared.data.raw_meta.inputs, squares)
    assert prepared.data.view.meta.inputs.shape == (6, 32, 32, 3)


def test_an_interrupted_epoch_goes_on_bit_for_bit(
    experiment, tmp_path, monkeypatch, assert_as_whole
):
    interrupted(experiment, tmp_path, monkeypatch, (2, 3))
    assert saved(tmp_path) == [2 * STEPS + 2]
    seen, save = [], Saver.__call__

    def watched(self, number, underway):
        seen.append((number, underway.done))
        save(self, number, underway)

    monkeypatch.setattr(Saver, "__call__", watched)
    assert_as_whole(tmp_path, train(experiment, tmp_path, 0, 0))
    assert seen == [(2, 3), (3, 1), (3, 2), (3, 3)]  # What was saved is not done again.


def test_a_killed_process_goes_on_bit_for_bit(place, experiment, tmp_path, assert_as_whole):
    killed(start(place, tmp_path, kill_at="1 2"))
    assert saved(tmp_path) == [STEPS + 2]
    assert [path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")] == ["1"]
    assert_as_whole(tmp_path, train(experiment, tmp_path, 0, 0))


def test_a_first_epoch_is_the_run_s_and_begins_anew_where_its_save_is_damaged(
    experiment, tmp_path, monkeypatch, assert_as_whole, capsys
):
    interrupted(experiment, tmp_path, monkeypatch, (0, 2))
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
