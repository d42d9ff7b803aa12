"""Compiled programs are kept, and fused on CPUs, where the flags say so."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.cli import compilation
from otrw_jax.files import read_json

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
FOLDER = "jax_compilation_cache_dir"
SHORTEST = "jax_persistent_cache_min_compile_time_secs"


@pytest.fixture
def no_folder(monkeypatch):
    """Settings of JAX as of one who has set nothing; as they were afterwards."""
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    before = {name: getattr(jax.config, name) for name in (FOLDER, SHORTEST)}
    jax.config.update(FOLDER, None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the script of a ResNet's gradient writes, and where its cache folder is."""
    return tmp_path_factory.mktemp("gradient")


@pytest.fixture(scope="module")
def gradient(folder):
    """Runs the script of a ResNet's gradient; gives what it comes to, and how it was compiled."""

    def run(*arguments):
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        script = "tests.experiments.resnet_gradient"
        command = [sys.executable, "-m", script, f"--workdir={folder}", *arguments]
        subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)
        return np.load(folder / "gradient.npy"), read_json(folder / "about.json")

    return run


@pytest.fixture(scope="module")
def first(gradient):
    """As it is the first time, when nothing is kept."""
    return gradient()


def test_a_program_that_was_kept_gives_the_same_bits(first, gradient, folder):
    plain, about = first
    kept = {path.name for path in (folder / "cache" / "otrw_jax" / "compiled").iterdir()}
    assert about["taken"] == 0 and any("loss" in name for name in kept)
    again, about = gradient()
    assert about["taken"] > 0 and again.tobytes() == plain.tobytes()
    again, about = gradient("--nokeep_compiled")
    assert about["taken"] == 0 and again.tobytes() == plain.tobytes()


def test_fused_it_is_another_program_the_same_to_rounding(first, gradient):
    plain, before = first
    fused, after = gradient("--fast_cpu")
    assert after["taken"] == 0  # The flags are part of what a program is kept under.
    assert after["kernels"] > before["kernels"]
    assert after["device"] == f"{before['device']}, fused eltwise+reduce"
    np.testing.assert_allclose(fused, plain, rtol=1e-3, atol=1e-5 * np.abs(plain).max())


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilation.cache_folder() == tmp_path / "otrw_jax" / "compiled"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        expected = tmp_path / "home" / ".cache" / "otrw_jax" / "compiled"
        assert compilation.cache_folder() == expected


def test_what_jax_was_given_stands(no_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for given in ("", "elsewhere"):
        jax.config.update(FOLDER, given)
        compilation.keep_programs()
        assert getattr(jax.config, FOLDER) == given
    jax.config.update(FOLDER, None)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    jax.config.update(SHORTEST, 7.0)
    compilation.keep_programs()
    assert getattr(jax.config, FOLDER) == str(tmp_path / "otrw_jax" / "compiled")
    assert getattr(jax.config, SHORTEST) == 7.0


def test_a_folder_that_cannot_be_made_is_told(no_folder, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compilation.keep_programs()
    said = capsys.readouterr().err
    assert said.startswith("compiled programs are not kept: ") and said.endswith("directory.\n")
    assert getattr(jax.config, FOLDER) is None


def test_an_option_that_jaxlib_does_not_know_is_one_sentence(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", before := "--xla_cpu_enable_fast_math=false")
    monkeypatch.setattr(compilation, "FUSED", "--xla_cpu_no_such_option=1")
    with pytest.raises(
        ValueError, match=r"^--fast_cpu sets --xla_cpu_no_such_option=1, with which "
    ):
        compilation.fuse()
    assert os.environ["XLA_FLAGS"] == before


def test_what_xla_flags_say_of_it_stands(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", own := f"{compilation.FUSION}=LIBRARY_FUSION_TYPE_DOT")
    compilation.fuse()
    assert os.environ["XLA_FLAGS"] == own and compilation.fusions() == "dot"
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    assert compilation.fusions() == ""
