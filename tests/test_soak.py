"""The short form of `make soak`."""

import shutil

import jax.numpy as jnp
import pytest

from otrw_jax.files import read_json, write_json
from tests import soak
from tests.experiments.conftest import data_dir  # noqa: F401


def test_seeds_trained_together_survive_two_kills(data_dir, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(soak, "STAGE1_EPOCHS", 4)
    monkeypatch.setattr(soak, "STAGE2_EPOCHS", 3)
    kills = soak.soak("seeds", tmp_path, kills=2, seed=0, data_dir=str(data_dir))
    assert kills.total() == 2

    # And what is not the same is seen.
    case, place = soak.CASES["seeds"], tmp_path / "seeds"
    soak.check(case, place / "run_0", place / "whole")
    results = read_json(place / "run_0" / "seed_1" / "results.json")
    results["last"]["error"] += 1e-9
    write_json(place / "run_0" / "seed_1" / "results.json", results)
    with pytest.raises(soak.SoakError, match=r"run_0/seed_1 ended otherwise than"):
        soak.check(case, place / "run_0", place / "whole")
    shutil.rmtree(place / "run_0" / "seed_1")
    shutil.copytree(place / "whole" / "seed_2", place / "run_0" / "seed_1")
    with pytest.raises(soak.SoakError):
        soak.check(case, place / "run_0", place / "whole")


def test_a_run_that_fails_is_no_survivor(tmp_path):
    (tmp_path / "ce").write_text("in the way")
    with pytest.raises((soak.SoakError, OSError)):
        soak.soak("ce", tmp_path, kills=1, seed=0)


def test_arrays_are_compared_by_their_bits():
    assert soak.equal(jnp.zeros(2), jnp.zeros(2))
    assert not soak.equal(jnp.zeros(2), -jnp.zeros(2))
    assert not soak.equal(jnp.zeros(2), jnp.zeros(2, jnp.int32))
