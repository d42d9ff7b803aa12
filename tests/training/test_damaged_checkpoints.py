"""Checkpoints that are damaged, half written or without checksums."""

import shutil

import orbax.checkpoint as ocp
import pytest

from otrw_jax.training.checkpoints import SUMS, CheckpointError, Checkpoints
from tests.training.states import assert_same, folders, make_state


async def no_space(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.fixture
def half_written(tmp_path, monkeypatch):
    """A folder with checkpoint 1 and what an interrupted write of checkpoint 2 left."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {"history": [1]})
        with monkeypatch.context() as patch:
            patch.setattr(ocp.StandardCheckpointHandler, "async_save", no_space)
            with pytest.raises(CheckpointError, match="No space left on device"):
                checkpoints.save(2, make_state(2), {})
    names = folders(tmp_path)
    assert len(names) == 2 and names[0] == "1" and names[1] != "2"
    return tmp_path


def test_half_a_checkpoint_is_none(half_written):
    with Checkpoints(half_written) as checkpoints:
        assert checkpoints.steps() == [1]
        assert checkpoints.record() == {"history": [1]}
        assert_same(checkpoints.restore(make_state()), make_state(1))
        checkpoints.save(2, make_state(2), {})
        assert checkpoints.steps() == [1, 2]
    assert folders(half_written) == ["1", "2"]


def emptied(path):
    path.write_bytes(b"")


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bit_flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def missing(path):
    path.unlink()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A folder of checkpoints 1 to 3."""
    folder = tmp_path_factory.mktemp("three")
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step), {"history": [step]})
    return folder


@pytest.mark.parametrize("harm", [emptied, cut_off, bit_flipped, missing])
def test_damage_to_any_file_is_found_before_it_is_read(three, harm, tmp_path):
    names = [p.relative_to(three / "3") for p in (three / "3").rglob("*") if p.is_file()]
    assert len(names) > 8
    for number, name in enumerate(names):
        if harm is missing and name.name == SUMS:
            continue  # As earlier versions wrote it.
        folder = shutil.copytree(three, tmp_path / str(number))
        harm(folder / "3" / name)
        with Checkpoints(folder, keep=3) as checkpoints:
            assert checkpoints.damage(2) is None
            for read in (checkpoints.record, lambda c=checkpoints: c.restore(make_state())):
                with pytest.raises(CheckpointError) as caught:
                    read()
                message = str(caught.value)
                assert f"checkpoint 3 in {folder} is damaged: " in message
                assert "whole are [1, 2]: choose one" in message
                assert name.name == SUMS or f"damaged: {name} " in message
            assert_same(checkpoints.restore(make_state(), 2), make_state(2))
            checkpoints.forget_after(2)
            checkpoints.save(3, make_state(3), {})
            assert_same(checkpoints.restore(make_state()), make_state(3))


def test_a_checkpoint_without_checksums_is_read_on_trial(three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "old")
    for step in (1, 2, 3):
        (folder / str(step) / SUMS).unlink()
    (folder / "2" / "state" / "_METADATA").unlink()
    emptied(folder / "3" / "record" / "metadata")
    with Checkpoints(folder, keep=3) as checkpoints:
        assert_same(checkpoints.restore(make_state(), 1), make_state(1))
        assert checkpoints.record(1) == {"history": [1]}
        with pytest.raises(
            CheckpointError, match=r"3 in .* damaged: it cannot be read .*are \[1\]:"
        ):
            checkpoints.record()
        assert checkpoints.damage(2) is not None
        assert checkpoints.damage(4) == "it is missing"
