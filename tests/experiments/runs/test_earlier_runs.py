"""A run directory that an earlier version wrote is gone on with, evaluated and restored.

`data/otrw_global` is a run on digits of three and two epochs, interrupted once the fourth was
saved, of a version that wrote -1 where None stands.
"""

import pathlib
import shutil

import numpy as np
import pytest

from experiments.program.experiment import Experiment
from experiments.runs.restoring import restore
from experiments.runs.training import train
from otrw_jax.files import read_json

WRITTEN = pathlib.Path(__file__).parent / "data" / "otrw_global"
# Of the fifth epoch, by the version that wrote the first four.
LOSS, ERROR = 0.1270392591303045, 22.0


@pytest.fixture(scope="module")
def gone_on(small_config, tmp_path_factory):
    """A copy of the directory, gone on with to its end, and the results."""
    workdir = shutil.copytree(WRITTEN, tmp_path_factory.mktemp("earlier") / "run")
    return workdir, train(Experiment(small_config("otrw_global")), workdir, 0, 0)


def test_it_is_gone_on_with_from_its_checkpoint(gone_on):
    workdir, results = gone_on
    written = (WRITTEN / "metrics.jsonl").read_text().splitlines()
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert lines[:3] == written and len(lines) == 5
    assert results["last"]["epoch"] == 5
    np.testing.assert_allclose(results["last"]["error"], ERROR, atol=0.5)
    assert f'"loss": {LOSS:.4f}'[:-1] in lines[4]


def test_it_is_evaluated_and_restored(gone_on, data_dir):
    workdir, _ = gone_on
    end = restore(workdir, data_dir=str(data_dir))
    weights = np.asarray(end.state.weights.values)
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-4)
    assert weights.shape == (sum(read_json(workdir / "run.json")["counts"]),)


def test_other_epochs_than_its_own_are_refused(small_config, tmp_path):
    workdir = shutil.copytree(WRITTEN, tmp_path / "run")
    config = small_config("otrw_global")
    config.stage1.epochs += 1
    with pytest.raises(ValueError, match=r"stage1\.epochs is 3 there and 4 here"):
        train(Experiment(config), workdir, 0, 0)
