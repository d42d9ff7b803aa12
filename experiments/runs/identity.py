"""What of a config decides what comes out of a run, and what does not; its imbalance factor."""

import hashlib
import json
from typing import Any

from ml_collections import ConfigDict

from experiments.configs.earlier import written_earlier
from experiments.configs.kinds import BY_COUNTS, LISTED, SENTENCES
from experiments.program.encoding import encoder_name

# Fields that change how a run is done, and not what comes out of it.
HOW = (
    "data.data_dir",
    "data.folder",
    "data.lists",
    "data.manual_dir",
    "data.max_excluded",
    "data.threads",
    "encoder.weights",
    "model.weights",
    "save_every",
    "checkpoint_every",
    "keep_checkpoints",
    "steps_per_call",
    "devices",
    "seeds",
    "seeds_at_once",
    "stage1_from",
)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names; sequences as lists, as JSON gives them back."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: list(tree) if isinstance(tree, tuple) else tree}
    return {
        name: value
        for key, inner in tree.items()
        for name, value in flatten(inner, f"{prefix}{key}.").items()
    }


def fingerprint_of(config: dict) -> str:
    """Of the fields that decide what comes out of a run; a checkpoint's record carries it.

    It is the same whichever version has written the config.
    """
    fields = written_earlier(flatten(config))
    decisive = {name: v for name, v in fields.items() if name not in HOW and name != "extended"}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def portable(config: ConfigDict) -> dict:
    """The fields of a config that decide what comes out of a run, flat, as JSON has them.

    Where an encoder's files lie decides nothing, and is no one else's business.
    """
    fields = {name: v for name, v in flatten(config.to_dict()).items() if name not in HOW}
    if config.data.name in SENTENCES:
        fields["encoder.folder"] = encoder_name(config.encoder)
    return fields


def factor_of(config: ConfigDict) -> float | None:
    """Largest over smallest class; None where features are taken as they are."""
    return factor_of_flat(flatten(config.to_dict()))


def factor_of_flat(config: dict) -> Any:
    """`factor_of` of a flat config."""
    if config["data.name"] in LISTED:
        return LISTED[config["data.name"]]
    if config["data.name"] not in BY_COUNTS:
        return config["data.imbalance_factor"]
    return max(config["data.counts"]) / min(config["data.counts"])
