"""Records of runs that are kept with the project: one JSON object a line.

The configs of many runs are alike but for their seeds. Each is kept once, in `configs.jsonl` beside
the records, by a hash of it, which stands in the record in its place; a record that holds its whole
config is read as well.
"""

import hashlib
import json
import pathlib

from experiments.configs import earlier
from experiments.configs.earlier import written_earlier
from otrw_jax.files import append_line, writing

CONFIGS = "configs.jsonl"
SEEDS = ("seed", "subset_seed")


def append(path: str | pathlib.Path, record: dict) -> None:
    """Adds a record at the end of a file, on the disk before it returns.

    Args:
        path: of the file.
        record: JSON data. Its config, if it has one, goes into the file of configs beside; the
            seeds in it are that of the record, where the record has one.
    """
    path = pathlib.Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    config = record.get("config")
    if isinstance(config, dict):
        key = key_of(config)
        if key not in _configs(path):
            _append(path.with_name(CONFIGS), {"key": key, "config": _without_seeds(config)})
        given = {name: config[name] for name in SEEDS if name in config}
        own = "seed" in record and given == dict.fromkeys(SEEDS, record["seed"])
        record = record | {"config": key} | ({} if own else {"config_seeds": given})
    _append(path, record)


def read(path: str | pathlib.Path) -> list[dict]:
    """The records of a file, in order, with their configs; none where there is no file.

    Raises:
        ValueError: a line is not a record, or its config is not there.
    """
    path = pathlib.Path(path)
    records, configs = _lines(path), None
    for number, record in enumerate(records, 1):
        key = record.get("config")
        if not isinstance(key, str):
            continue
        configs = configs or _configs(path)
        if key not in configs:
            raise ValueError(
                f"{path}, line {number}: {path.with_name(CONFIGS)} has no config {key}; restore "
                "that file, or delete the line."
            )
        given = record.pop("config_seeds", None)
        if given is None:
            given = dict.fromkeys(SEEDS, record["seed"])
        record["config"] = earlier.read(configs[key]) | given
    return records


def key_of(config: dict) -> str:
    """A hash of a flat config without its seeds, 16 hexadecimal digits; of any version's alike."""
    text = json.dumps(written_earlier(_without_seeds(config)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_seeds(config: dict) -> dict:
    return {name: value for name, value in config.items() if name not in SEEDS}


def _configs(path: pathlib.Path) -> dict[str, dict]:
    return {one["key"]: one["config"] for one in _lines(path.with_name(CONFIGS))}


def _append(path: pathlib.Path, value: dict) -> None:
    append_line(path, json.dumps(value, separators=(",", ":")))


def _lines(path: pathlib.Path) -> list[dict]:
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}, is not a record ({error.msg}); delete the line."
            ) from error
    return records
