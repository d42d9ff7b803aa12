"""What a run directory says of its run: its config, the data it saw, its results."""

import contextlib
import fcntl
import hashlib
import json
import pathlib
import platform
from importlib import metadata
from typing import Any

import jax
from ml_collections import ConfigDict

import otrw_jax
from experiments.benchmarks.timing import cores
from experiments.cli.compilation import fusions
from experiments.documents.measurements import cpu_model
from experiments.program.encoding import name_of
from experiments.program.experiment import Experiment, Prepared
from experiments.recipes import RECIPES
from experiments.runs.extending import (
    Changes,
    check_changes,
    is_of_this_kind,
    other_first_stage,
    told,
    undone,
)
from experiments.runs.network_files import is_network_file, read_about
from otrw_jax.models.model import count_parameters
from otrw_jax.training.files import read_json, write_json, writing

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


def holds_run(folder: pathlib.Path) -> bool:
    """Whether a folder is a run directory; a run that ended before its first checkpoint is none."""
    checkpoints = folder / "checkpoints"
    return checkpoints.is_dir() and any(path.name.isdigit() for path in checkpoints.iterdir())


def runs_below(folder: pathlib.Path, depth: int = 4) -> list[pathlib.Path]:
    """The run directories in a folder's subfolders: a run each, or one a seed of these."""
    patterns = ["*/checkpoints", *("*/" * at + "seed_*/checkpoints" for at in range(depth))]
    found = {path.parent for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if holds_run(path))


def check_place(workdir: pathlib.Path) -> None:
    """Refuses to begin a run around other runs, or within another.

    Raises:
        ConfigMismatchError: the directory, or one that it lies in, belongs to other runs.
    """
    if holds_run(workdir):
        return
    around = next((path for path in workdir.absolute().parents if holds_run(path)), None)
    if around:
        raise ConfigMismatchError(f"{around} holds a run of one seed; choose another --workdir.")
    inside = runs_below(workdir)
    if inside:
        names = [str(path.relative_to(workdir)) for path in inside[:3]]
        more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
        raise ConfigMismatchError(
            f"{workdir} holds runs in folders of their own ({', '.join(names)}{more}); choose "
            "another --workdir, or one of these to go on with it."
        )


def claim(workdir: pathlib.Path, config: ConfigDict, extend: bool = False) -> Changes:
    """Writes the config of a new run; refuses a directory whose run has another.

    Args:
        workdir: the run directory.
        config: of the run.
        extend: whether its run may go on with other epochs and rates.

    Returns:
        What an extension changes, which `extended` writes; nothing where there is none.

    Raises:
        ConfigMismatchError: it has another, its config is gone, or it was extended before.
        ValueError: what cannot be changed by an extension.
    """
    wanted, extensions = flatten(config.to_dict()), []
    if holds_run(workdir):
        found = flatten(read_config(workdir))
        extensions = found.pop("extended", [])
        if extensions and not extend:
            raise ConfigMismatchError(
                f"{workdir} holds a run that was extended ({told(extensions)}); repeat its command "
                "with --extend to go on with it, or choose another --workdir."
            )
        changes = {
            name: [found.get(name, "absent"), wanted.get(name, "absent")]
            for name in sorted(found.keys() | wanted.keys())
            if name not in HOW and found.get(name) != wanted.get(name)
        }
        if changes and extend:
            check_changes(workdir, found, changes)
            return changes
        if changes:
            differing = [
                f"{name} is {a!r} there and {b!r} here" for name, (a, b) in changes.items()
            ]
            way = ", or give --extend to go on from its last checkpoint with these values"
            raise ConfigMismatchError(
                f"{workdir} holds a run of another config: {'; '.join(differing)}. Choose another "
                "--workdir, or repeat the run's own config to go on with it"
                f"{way if all(map(is_of_this_kind, changes)) else ''}."
            )
    added = {"extended": extensions} if extensions else {}
    write_json(workdir / "config.json", config.to_dict() | added)
    return {}


def extended(workdir: pathlib.Path, config: ConfigDict, changes: Changes, after: int) -> None:
    """Writes the config of a run that is extended after an epoch, and says so."""
    extensions = read_config(workdir).get("extended", [])
    extensions.append({"after": after, "fields": changes})
    write_json(workdir / "config.json", config.to_dict() | {"extended": extensions})
    print(f"{workdir}: extended {told(extensions[-1:])}", flush=True)


def read_config(workdir: pathlib.Path) -> dict:
    """The config of a run directory.

    Raises:
        ConfigMismatchError: it is gone.
        ValueError: it is damaged.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise ConfigMismatchError(
            f"{path} is gone, and the checkpoints beside it cannot be read without: restore it "
            "from a copy, or choose another --workdir."
        )
    config = read_json(path)
    if not isinstance(config, dict):
        raise ValueError(
            f"{path} is damaged: it holds no config; restore it from a copy, or choose another "
            "--workdir."
        )
    return config


def fingerprint_of(config: dict) -> str:
    """Of the fields that decide what comes out of a run; a checkpoint's record carries it."""
    fields = flatten(config)
    decisive = {name: v for name, v in fields.items() if name not in HOW and name != "extended"}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def check_config(workdir: pathlib.Path, record: dict) -> None:
    """Refuses a config that is not the one by which a checkpoint was trained.

    Args:
        workdir: the run directory.
        record: of the checkpoint; those of earlier versions carry no fingerprint.

    Raises:
        ConfigMismatchError: the config was altered.
    """
    known, fields = record.get("config"), flatten(read_config(workdir))
    states = undone(fields, fields.get("extended", []))
    if known and known not in map(fingerprint_of, states):
        raise ConfigMismatchError(
            f"{workdir / 'config.json'} is not the config by which the checkpoints beside it were "
            "trained: it was altered, or belongs to another run; restore it from a copy, or choose "
            "another --workdir."
        )


@contextlib.contextmanager
def alone_in(workdir: pathlib.Path):
    """Holds a run directory, so that no second process writes to it at the same time.

    Raises:
        RunningError: another process holds it.
    """
    path = workdir / ".lock"
    with contextlib.ExitStack() as opened:
        with writing(path):
            file = opened.enter_context(path.open("w"))
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
    if len({RECIPES[name].first or name for name in recipes}) > 1:
        return ["recipe"]
    # Of a recipe with a second stage the options concern that.
    parts += tuple(f"options.{name}." for name in recipes if RECIPES[name].second is None)
    return [
        name
        for name in sorted(found.keys() | wanted.keys())
        if name.startswith(parts) and name not in HOW and found.get(name) != wanted.get(name)
    ]


def _extended_otherwise(path: pathlib.Path | dict) -> bool:
    is_run = not isinstance(path, dict) and not is_network_file(path)
    return is_run and other_first_stage(read_config(path))


def _portable_config_of(path: pathlib.Path | dict) -> dict:
    if isinstance(path, dict):
        return path
    if is_network_file(path):
        return read_about(path)["config"]
    return portable(ConfigDict(read_config(path)))


def portable(config: ConfigDict) -> dict:
    """The fields of a config that decide what comes out of a run, flat, as JSON has them.

    Where an encoder's files lie decides nothing, and is no one else's business.
    """
    fields = {name: v for name, v in flatten(config.to_dict()).items() if name not in HOW}
    if "encoder" in config:
        fields["encoder.folder"] = name_of(config.encoder)
    return fields


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
    return factor_of_flat(flatten(config.to_dict()))


def factor_of_flat(config: dict) -> float:
    """Largest over smallest class, of a flat config."""
    counts = config.get("data.counts")
    return max(counts) / min(counts) if counts else config["data.imbalance_factor"]


def provenance() -> dict:
    """Versions and device that a result comes from."""
    packages = ("jax", "jaxlib", "flax", "optax", "ott-jax", "orbax-checkpoint")
    return {
        "versions": {"python": platform.python_version(), "otrw_jax": otrw_jax.__version__}
        | {name: metadata.version(name) for name in packages},
        "device": device_name(),
    }


def device_name() -> str:
    """The device by a name that tells machines apart, as "cpu: AMD EPYC 7763, 2 cores".

    With XLA's fused kernels, which round in a way of their own, these stand behind it.
    """
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{device.platform}: {device.device_kind}"
    fused = f", fused {fusions()}" if fusions() else ""
    return f"cpu: {cpu_model()}, {cores()} core{'s' if cores() > 1 else ''}{fused}"


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
