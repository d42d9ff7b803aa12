"""What a run directory says of its run: its config, the data it saw, its results."""

import contextlib
import fcntl
import pathlib
import platform
from importlib import metadata
from typing import Any

import jax
from ml_collections import ConfigDict

import otrw_jax
from experiments.experiment import Experiment, Prepared
from experiments.recipes import RECIPES
from otrw_jax.checkpoints import read_json, write_json
from otrw_jax.model import count_parameters

# Fields that change how a run is done, and not what comes out of it.
HOW = (
    "data.data_dir",
    "data.manual_dir",
    "checkpoint_every",
    "keep_checkpoints",
    "steps_per_call",
    "devices",
    "seeds",
    "seeds_at_once",
    "stage1_from",
)


class RunningError(RuntimeError):
    """A run directory is in use by another process."""


class ConfigMismatchError(ValueError):
    """A run directory belongs to a run of another config."""


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Writes the config of a new run; refuses a directory whose run has another.

    A run that ended before its first checkpoint is none.
    """
    path, checkpoints = workdir / "config.json", workdir / "checkpoints"
    wanted = flatten(config.to_dict())
    if path.exists() and checkpoints.is_dir() and any(checkpoints.iterdir()):
        found = flatten(read_json(path))
        differing = [
            f"{name} is {found.get(name, 'absent')!r} there and {wanted.get(name, 'absent')!r} here"
            for name in sorted(found.keys() | wanted.keys())
            if name not in HOW and found.get(name) != wanted.get(name)
        ]
        if differing:
            raise ConfigMismatchError(
                f"{workdir} holds a run of another config: {'; '.join(differing)}. Choose another "
                "--workdir, or repeat the run's own config to go on with it."
            )
    write_json(path, config.to_dict())


@contextlib.contextmanager
def alone_in(workdir: pathlib.Path):
    """Holds a run directory, so that no second process writes to it at the same time.

    Raises:
        RunningError: another process holds it.
    """
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunningError(
                f"another process is training in {workdir}; wait for it, end it, or choose "
                "another --workdir."
            ) from None
        except OSError:  # A file system without locks: nothing to hold.
            pass
        yield


def differing_first_stage(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """Names of the fields in which the first stages of two runs differ."""
    found, wanted = (flatten(read_json(path / "config.json")) for path in (one, other))
    parts = ("data.", "encoder.", "model.", "stage1.", "seed", "subset_seed")
    recipes = found["recipe"], wanted["recipe"]
    if len({RECIPES[name].first or name for name in recipes}) > 1:
        return ["recipe"]
    # Of a recipe with a second stage the options concern that.
    parts += tuple(f"options.{name}." for name in recipes if RECIPES[name].second is None)
    return [
        name
        for name in sorted(found.keys() | wanted.keys())
        if name.startswith(parts) and name not in HOW and found.get(name) != wanted.get(name)
    ]


def describe(workdir: pathlib.Path, experiment: Experiment, prepared: Prepared, variables) -> None:
    """Writes run.json: the subset's identity, the network's size, versions, device."""
    description = {
        "recipe": experiment.config.recipe,
        "fingerprint": prepared.split.fingerprint,
        "counts": prepared.split.counts.tolist(),
        "meta": int(prepared.split.meta.size),
        "held_out": int(prepared.split.held_out.size),
        "test": int(prepared.test.labels.shape[0]),
        "parameters": count_parameters(variables["params"]),
        **provenance(),
        "devices": experiment.devices.total,
    }
    write_json(workdir / "run.json", description)
    print(
        f"{experiment.dataset.name}: {sum(description['counts'])} training examples "
        f"{description['counts'] if len(description['counts']) <= 10 else ''}, "
        f"subset {description['fingerprint']}, {description['parameters']:,} parameters"
    )


def factor_of(config: ConfigDict) -> float:
    """Largest over smallest class."""
    if "counts" in config.data:
        return max(config.data.counts) / min(config.data.counts)
    return config.data.imbalance_factor


def provenance() -> dict:
    """Versions and device that a result comes from."""
    packages = ("jax", "jaxlib", "flax", "optax", "ott-jax", "orbax-checkpoint")
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version(), "otrw_jax": otrw_jax.__version__}
        | {name: metadata.version(name) for name in packages},
        "device": f"{device.platform}: {device.device_kind}",
    }


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names; sequences as lists, as JSON gives them back."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: list(tree) if isinstance(tree, tuple) else tree}
    return {
        name: value
        for key, inner in tree.items()
        for name, value in flatten(inner, f"{prefix}{key}.").items()
    }


def three_results(history: list[dict]) -> dict:
    """Of the last stage: the last epoch, and the best by balanced accuracy on either part."""
    records = {
        "last": history[-1],
        "best_held_out": best_record(history, "held_out"),
        "best_test": best_record(history, "test"),
    }
    return {
        name: record and {"epoch": record["number"], **record["test"]}
        for name, record in records.items()
    }


def best_record(history: list[dict], part: str) -> dict | None:
    """The first epoch of the last stage with the highest balanced accuracy on a part."""
    records = [r for r in history if r["stage"] == history[-1]["stage"] and part in r]
    return max(records, key=lambda r: r[part]["balanced_accuracy"]) if records else None
