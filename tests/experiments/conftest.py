"""What the tests of the experiments share: a data folder, small configs, a run, scripts."""

import functools
import sys

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import train as train_script
from experiments.cli import run_app
from experiments.configs import digits
from experiments.program import data
from experiments.program.experiment import Experiment
from experiments.runs.training import train
from otrw_jax.data.sources import ARRAYS, load_dataset
from otrw_jax.training.checkpoints import Checkpoints

STAGE1_EPOCHS, STAGE2_EPOCHS = 3, 2


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A TFDS folder with the digits, so that nothing is written to the user's home."""
    folder = tmp_path_factory.mktemp("tfds")
    # Loaded here once, since reading defines flags, which a test that restores flags would lose.
    load_dataset("digits", folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def digits_read_once():
    """Decodes the digits of a folder once, for all experiments on them: none may change them."""
    read = functools.cache(load_dataset)

    def load(name, folder, *more):
        if name != "digits" or folder is None:
            return load_dataset(name, folder, *more)
        dataset = read(name, folder, *more)
        for part in ARRAYS:
            getattr(dataset, part).flags.writeable = False
        return dataset._replace()  # One of its own, of the same arrays.

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_dataset", load)
        yield


@pytest.fixture(scope="session")
def small_config(data_dir):
    """From a recipe to a config of a run on digits that takes a second."""

    def make(recipe):
        config = digits.get_config(f"recipe={recipe}")
        config.data.data_dir = str(data_dir)
        config.stage1.epochs = STAGE1_EPOCHS
        for stage in config.stage2.values():
            stage.epochs = STAGE2_EPOCHS
        return config

    return make


@pytest.fixture(scope="session")
def experiment(small_config):
    """The two stages of `otrw_paper`."""
    return Experiment(small_config("otrw_paper"))


@pytest.fixture(scope="session")
def whole_run(experiment, tmp_path_factory):
    """The directory and the results of an uninterrupted run of `experiment`."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, train(experiment, workdir, seed=0, subset_seed=0)


@pytest.fixture(scope="session")
def final_state():
    """From an experiment and a run directory to the state of a checkpoint, the last by default."""

    def read(experiment, workdir, number=None, seed=0):
        prepared = experiment.prepare(seed)
        program = experiment.program(prepared)
        index = 0 if number is not None and number <= program.ends[0] else len(program.ends) - 1
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            return checkpoints.restore(program.template(index, prepared), number)

    return read


@pytest.fixture(scope="session")
def assert_same_bits():
    """Asserts that two pytrees of arrays are equal bit for bit."""

    def check(one, other):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(one)]
        for path, a, b in zip(paths, jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
            assert a.dtype == b.dtype, path
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path

    return check


@pytest.fixture
def run_script(monkeypatch, data_dir):
    """Calls a script as the command line would; returns what it exits with."""
    del data_dir

    def run(script, *arguments):
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
            try:
                required = ("config", "workdir") if script is train_script else ("workdir",)
                run_app(script.main, *required)
            except SystemExit as end:
                return end.code
            finally:
                flags.FLAGS.mark_as_parsed()

    return run
