"""What is done of an epoch in a run directory: which epoch's it must be, and what becomes of it."""

import contextlib

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.runs.directory import ConfigMismatchError, holds_run
from experiments.runs.identity import fingerprint_of, flatten
from experiments.runs.streamed.underway import UnderwayFolder
from otrw_jax.files import write_json
from otrw_jax.training.streaming import Underway

CONFIG = {"seed": 0, "data": {"name": "digits"}, "stage1": {"epochs": 5}}
STEPS = 8


@pytest.fixture
def folder(tmp_path):
    """A folder of a run's, open."""
    write_json(tmp_path / "config.json", CONFIG)
    with contextlib.ExitStack() as files:
        yield UnderwayFolder(tmp_path, fingerprint_of(flatten(CONFIG)), files)


def done(steps):
    ids = np.arange(2 * STEPS, dtype=np.int32).reshape(STEPS, 2)
    totals = {"loss": (jnp.ones(()), jnp.ones(()))}
    return Underway({"w": jnp.full(3, float(steps))}, ids, steps, totals, 2 * STEPS)


def template():
    return {"w": jnp.zeros(3)}


def save(folder, before=3, number=1, steps=6):
    folder.saver(2, before)(number, done(steps))


def test_what_is_saved_is_of_the_next_epoch_over_all_stages(folder, tmp_path):
    assert folder.begun(template) is None and not holds_run(tmp_path)
    save(folder)
    assert holds_run(tmp_path)
    folder.settle(4)
    begun = folder.begun(template)
    assert (begun.done, begun.examples) == (6, 2 * STEPS)
    assert begun.state["w"].tolist() == [6.0] * 3
    np.testing.assert_array_equal(begun.ids, done(6).ids)


@pytest.mark.parametrize("epochs", [3, 5])
def test_what_is_of_another_epoch_is_forgotten(epochs, folder, capsys):
    """A kill may come between an epoch's checkpoint and the end of what was saved of it."""
    save(folder)
    folder.settle(epochs)
    assert folder.begun(template) is None
    assert capsys.readouterr().out == ""


def test_a_later_stage_saves_whatever_the_numbers_of_the_first(folder):
    """Its epochs may have fewer steps."""
    save(folder, number=2)
    folder.forget()
    short = done(2)._replace(ids=done(2).ids[:3])
    folder.saver(2, 4)(0, short)
    folder.settle(4)
    assert folder.begun(template).done == 2


def test_what_is_forgotten_for_a_reason_is_told_where_there_is_something(folder, tmp_path, capsys):
    folder.forget("it rains")
    assert capsys.readouterr().out == ""
    save(folder)
    folder.forget("it rains")
    assert capsys.readouterr().out == f"{tmp_path}: it rains; it begins anew.\n"


def test_what_was_done_before_an_extension_is_told_and_forgotten(folder, tmp_path, capsys):
    save(folder)
    extension = {"after": 4, "fields": {"stage1.epochs": [5, 6]}}
    config = CONFIG | {"stage1": {"epochs": 6}, "extended": [extension]}
    write_json(tmp_path / "config.json", config)
    with contextlib.ExitStack() as files:
        extended = UnderwayFolder(tmp_path, fingerprint_of(flatten(config)), files)
        extended.settle(4)
        assert extended.begun(template) is None
    said = f"{tmp_path}: epoch 5 had begun before the run was extended; it begins anew.\n"
    assert capsys.readouterr().out == said


def test_a_config_that_was_altered_is_refused(folder, tmp_path):
    save(folder)
    write_json(tmp_path / "config.json", CONFIG | {"seed": 1})
    with pytest.raises(ConfigMismatchError, match="is not the config by which the checkpoints"):
        folder.settle(4)
