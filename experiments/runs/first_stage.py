"""Another run's first stage, taken over where it is a run's own."""

import os
import pathlib
from typing import Any

from jaxtyping import PyTree
from ml_collections import ConfigDict

from experiments.program.compiled import Program
from experiments.program.prepared import Prepared
from experiments.recipes import RECIPES
from experiments.runs.directory import (
    ConfigMismatchError,
    check_same_data,
    check_unaltered,
    read_config,
)
from experiments.runs.extending import other_first_stage
from experiments.runs.identity import HOW, portable
from experiments.runs.network_files import is_network_file, read_about, read_network
from experiments.runs.provenance import device_name
from otrw_jax.files import read_json
from otrw_jax.training.checkpoints import Checkpoints


def taken_over(
    source: str | os.PathLike,
    workdir: pathlib.Path,
    program: Program,
    prepared: Prepared,
    seed: int,
    variables: PyTree,
) -> tuple[Any, list[dict]]:
    """The state after another run's first stage, and its history.

    Epochs of another device carry its name, as `device`.

    Args:
        source: the other's run directory, or a network file, which begins with a fresh optimiser.
        workdir: the run directory, whose config is there.
        program: the run's, as the next three.
        prepared: its data.
        seed: of what is random in it.
        variables: the network before training.

    Raises:
        FileNotFoundError: there is no such run.
        ConfigMismatchError: the first stage is not this run's, or of other examples.
        CheckpointError: its checkpoint is damaged.
    """
    source = pathlib.Path(source).expanduser()
    if not is_network_file(source) and not (source / "checkpoints").is_dir():
        raise FileNotFoundError(f"stage1_from: {source} holds no run; train it first.")
    differing = differing_first_stage(source, workdir)
    if differing:
        raise ConfigMismatchError(
            f"stage1_from: the run in {source} differs in {', '.join(differing)}; its first stage "
            "is not this run's."
        )
    if not is_network_file(source):
        with Checkpoints(source / "checkpoints", read_only=True) as theirs:
            record = theirs.record(program.ends[0])
            check_unaltered(source, record)
            check_same_data(source, prepared)
            state = theirs.restore(program.template(0, prepared), program.ends[0])
        described = source / "run.json"
        device = read_json(described).get("device") if described.exists() else None
        return state, _trained_on(device, record["history"])
    about, here = read_about(source), prepared.split.fingerprint
    if about["fingerprint"] != here:
        raise ConfigMismatchError(
            f"stage1_from: the network in {source} was trained on subset {about['fingerprint']}, "
            f"this run's is {here}; prepare the data set anew, or train the first stage."
        )
    variables = read_network(source, variables)
    loop, key = program.loops(0)[0], program.stage_key(seed, 0)
    data = program.data_of(loop.stage, seed, prepared, variables)
    state = loop.start(key, variables, data).replace(variables=variables)
    return state, _trained_on(about["device"], about["history"])


def _trained_on(device: str | None, history: list[dict]) -> list[dict]:
    """A history, each epoch with the device where it is another than this."""
    if device in (None, device_name()):
        return history
    return [{"device": device} | epoch for epoch in history]


def differing_first_stage(one: pathlib.Path | dict, other: pathlib.Path | dict) -> list[str]:
    """Names of the fields in which the first stages of two runs differ.

    Args:
        one: a run directory, a network file, or a config as `portable` gives it.
        other: likewise.
    """
    if _extended_otherwise(one):
        return ["its rates, by an extension"]
    found, wanted = (_portable_config_of(path) for path in (one, other))
    parts = ("data.", "encoder.", "model.", "stage1.", "seed", "subset_seed")
    recipes = found["recipe"], wanted["recipe"]
    if len({RECIPES[name].trains_first or name for name in recipes}) > 1:
        return ["recipe"]
    # Of a recipe with a second stage the options concern that.
    parts += tuple(f"options.{name}." for name in recipes if RECIPES[name].second is None)
    return [
        name
        for name in sorted(found.keys() | wanted.keys())
        if name.startswith(parts) and name not in HOW and found.get(name) != wanted.get(name)
    ]


def _extended_otherwise(path: pathlib.Path | dict) -> bool:
    if isinstance(path, dict) or is_network_file(path):
        return False
    return other_first_stage(read_config(path))


def _portable_config_of(path: pathlib.Path | dict) -> dict:
    if isinstance(path, dict):
        return path
    if is_network_file(path):
        return read_about(path)["config"]
    return portable(ConfigDict(read_config(path)))
