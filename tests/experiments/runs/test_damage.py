"""Runs whose checkpoints, config or disk are damaged: one sentence, and nothing whole is lost."""

import shutil

import pytest

from experiments.runs.directory import ConfigMismatchError
from experiments.runs.journal import Reporter
from experiments.runs.restoring import restore
from experiments.runs.training import train
from otrw_jax.files import read_json, write_json
from otrw_jax.training.checkpoints import CheckpointError
from tests.experiments.shared import history_of, lines_of
from tests.full_disk import full_after


@pytest.fixture
def copy(whole_run, tmp_path):
    """A copy of the finished run, of epochs 3 to 5."""
    return shutil.copytree(whole_run[0], tmp_path / "copy")


def harm(workdir, step):
    """Flips a bit in the largest file of a checkpoint."""
    files = [path for path in (workdir / "checkpoints" / str(step)).rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path.name


@pytest.mark.parametrize(("damaged", "left"), [((5,), 4), ((4, 5), 3)])
def test_a_run_goes_on_from_the_last_whole_checkpoint(
    damaged, left, copy, whole_run, experiment, final_state, assert_same_bits, capsys
):
    names = [harm(copy, step) for step in damaged]
    with pytest.raises(
        CheckpointError, match=f"checkpoint 5 .* damaged: .*{names[-1]} has another"
    ):
        restore(copy)
    restore(copy, str(left))
    assert train(experiment, copy, 0, 0) == whole_run[1]
    said = capsys.readouterr().out
    for step, name in zip(damaged, names, strict=True):
        assert f"checkpoint {step} is damaged (state/" in said and name in said
    assert said.count(f"going on from {left}.") == len(damaged)
    assert_same_bits(final_state(experiment, copy), final_state(experiment, whole_run[0]))
    assert history_of(copy) == history_of(whole_run[0])
    assert [r["number"] for r in lines_of(copy)] == [1, 2, 3, 4, 5]


def test_a_damaged_end_of_a_stage_is_needed_by_those_after_it(copy, experiment, whole_run):
    harm(copy, 3)
    assert train(experiment, copy, 0, 0) == whole_run[1]  # It is done.
    shutil.rmtree(copy / "checkpoints" / "5")
    with pytest.raises(CheckpointError, match=r"checkpoint 3 is damaged .*, and no whole one is"):
        train(experiment, copy, 0, 0)
    assert restore(copy, "4").number == 4


def test_a_damaged_first_stage_is_not_taken_over(copy, experiment, tmp_path):
    harm(copy, 3)
    with pytest.raises(CheckpointError, match=f"checkpoint 3 in {copy}.* is damaged"):
        train(experiment, tmp_path / "new", 0, 0, copy)


def test_an_altered_or_missing_config_is_refused_by_all(copy, experiment, tmp_path):
    config = read_json(copy / "config.json")
    config["model"]["hidden"] = [128, 32]
    write_json(copy / "config.json", config)
    for use in (
        lambda: restore(copy),
        lambda: train(experiment, copy, 0, 0),
        lambda: train(experiment, tmp_path / "new", 0, 0, copy),
    ):
        with pytest.raises(ConfigMismatchError):
            use()
    (copy / "config.json").unlink()
    for use in (
        lambda: restore(copy),
        lambda: train(experiment, copy, 0, 0),
        lambda: train(experiment, tmp_path / "other", 0, 0, copy),
    ):
        with pytest.raises(ConfigMismatchError, match=r"config\.json is gone"):
            use()


def test_a_checkpoint_of_earlier_versions_goes_on(copy, experiment, whole_run):
    for path in (copy / "checkpoints").glob("*/checksums.json"):
        path.unlink()
    shutil.rmtree(copy / "checkpoints" / "5")
    assert train(experiment, copy, 0, 0) == whole_run[1]


def test_a_full_disk_is_told_by_the_file(copy, experiment, whole_run, monkeypatch):
    begin = Reporter.__init__

    def on_a_full_disk(*given):
        with full_after(100):
            begin(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "__init__", on_a_full_disk)
        with pytest.raises(OSError, match=r"metrics\.jsonl cannot be written \(File too large\)"):
            train(experiment, copy, 0, 0)
    assert len(lines_of(copy)) == 5
    assert train(experiment, copy, 0, 0) == whole_run[1]
    assert len(lines_of(copy)) == 5
