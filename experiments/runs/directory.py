"""What a run directory says of its run: its config, and the data it saw."""

import pathlib

from jaxtyping import PyTree
from ml_collections import ConfigDict

from experiments.configs import earlier
from experiments.program.compiled import Program
from experiments.program.prepared import Prepared
from experiments.runs.extending import (
    Changes,
    before_extensions,
    check_changes,
    in_words,
    is_extendable,
)
from experiments.runs.identity import HOW, fingerprint_of, flatten
from experiments.runs.provenance import provenance
from otrw_jax.files import read_json, write_json
from otrw_jax.models.model import count_parameters

UNDERWAY = "checkpoints_underway"
"""Folder of what is done of an epoch, where images are streamed."""


class ConfigMismatchError(ValueError):
    """A run directory belongs to a run of another config."""


def holds_run(folder: pathlib.Path) -> bool:
    """Whether a folder is a run directory; a run that ended before its first checkpoint is none."""
    return any(_holds_checkpoints(folder / name) for name in ("checkpoints", UNDERWAY))


def _holds_checkpoints(folder: pathlib.Path) -> bool:
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


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
                f"{workdir} holds a run that was extended ({in_words(extensions)}); repeat its "
                "command with --extend to go on with it, or choose another --workdir."
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
            extendable = _holds_checkpoints(workdir / "checkpoints")
            way = ", or give --extend to go on from its last checkpoint with these values"
            raise ConfigMismatchError(
                f"{workdir} holds a run of another config: {'; '.join(differing)}. Choose another "
                "--workdir, or repeat the run's own config to go on with it"
                f"{way if extendable and all(map(is_extendable, changes)) else ''}."
            )
    added = {"extended": extensions} if extensions else {}
    write_json(workdir / "config.json", config.to_dict() | added)
    return {}


def extended(workdir: pathlib.Path, config: ConfigDict, changes: Changes, after: int) -> None:
    """Writes the config of a run that is extended after an epoch, and says so."""
    extensions = read_config(workdir).get("extended", [])
    extensions.append({"after": after, "fields": changes})
    write_json(workdir / "config.json", config.to_dict() | {"extended": extensions})
    print(f"{workdir}: extended {in_words(extensions[-1:])}", flush=True)


def read_config(workdir: pathlib.Path) -> dict:
    """The config of a run directory, as it is written now.

    Raises:
        ConfigMismatchError: it is gone.
        ValueError: it is damaged.
    """
    return earlier.read(_read_config_file(workdir))


def _read_config_file(workdir: pathlib.Path) -> dict:
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


def check_unaltered(workdir: pathlib.Path, record: dict) -> None:
    """Refuses a config that is not the one by which a checkpoint was trained.

    Args:
        workdir: the run directory.
        record: of the checkpoint; those of earlier versions carry no fingerprint.

    Raises:
        ConfigMismatchError: the config was altered.
    """
    known, fields = record.get("config"), flatten(_read_config_file(workdir))
    states = before_extensions(fields, fields.get("extended", []))
    if known and known not in map(fingerprint_of, states):
        raise ConfigMismatchError(
            f"{workdir / 'config.json'} is not the config by which the checkpoints beside it were "
            "trained: it was altered, or belongs to another run; restore it from a copy, or choose "
            "another --workdir."
        )


def check_same_data(workdir: pathlib.Path, prepared: Prepared) -> None:
    """Refuses data that are not those of the run in a directory.

    Args:
        workdir: the run directory; where its run.json is gone, there is nothing to compare.
        prepared: the data as they are found now.

    Raises:
        ConfigMismatchError: its run has seen another subset, or a test set of another size.
        ValueError: run.json is damaged.
    """
    path = workdir / "run.json"
    known = read_json(path) if path.exists() else {}
    found = {
        "fingerprint": prepared.split.fingerprint,
        "test": int(prepared.test.labels.shape[0]),
    }
    differing = [
        f"{name} is {known[name]!r} there and {value!r} here"
        for name, value in found.items()
        if name in known and known[name] != value
    ]
    if differing:
        raise ConfigMismatchError(
            f"{workdir} holds a run of other data: {'; '.join(differing)}. Give the folder of the "
            "data set that it was trained on, or prepare the data set anew."
        )


def describe(
    workdir: pathlib.Path, program: Program, prepared: Prepared, variables: PyTree
) -> None:
    """Writes run.json: the subset's identity, the network's size, versions, device."""
    description = {
        "recipe": program.config.recipe,
        "fingerprint": prepared.split.fingerprint,
        "counts": prepared.split.counts.tolist(),
        "meta": int(prepared.split.meta.size),
        "held_out": int(prepared.split.held_out.size),
        "test": int(prepared.test.labels.shape[0]),
        "parameters": count_parameters(variables["params"]),
        **provenance(),
        "devices": program.devices.total,
    }
    write_json(workdir / "run.json", description)
    print(
        f"{prepared.dataset.name}: {sum(description['counts'])} training examples "
        f"{description['counts'] if len(description['counts']) <= 10 else ''}, "
        f"subset {description['fingerprint']}, {description['parameters']:,} parameters"
    )
