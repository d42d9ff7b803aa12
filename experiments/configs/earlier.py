"""Configs as earlier versions wrote them, read as they are written now; and the way back.

Numbers that stood for something else, as -1 for a choice by the backend, are None now. Run
directories, network files and records keep what they were written with. Hashes of a config are of
the earlier form, so that a config has one fingerprint, whichever version wrote it.
"""

import fnmatch
from typing import Any

from ml_collections import ConfigDict

STOOD_FOR_NONE = {
    "seeds_at_once": -1,
    "steps_per_call": -1,
    "options.tau_norm.tau": -1.0,
    "*.levers.smoothing_tail": -1.0,
}
"""Pattern of a field's dotted name to the number that was written for None."""

NOT_YET_THERE = {
    **{
        f"options.{recipe}.augment_meta": "never"
        for recipe in (
            *("mwn", "mcw_ce", "mcw_focal", "mcw_ldam", "otrw_released"),
            *("metasaug_ce", "metasaug_focal", "metasaug_ldam"),
        )
    },
    **{f"options.{recipe}.rate_factor": 1.0 for recipe in ("ib", "ib_cb", "ib_focal")},
    **{f"options.metasaug_{loss}.covariance": "full" for loss in ("ce", "focal", "ldam")},
}
"""Options that some versions did not have, and what they did."""


def read(config: dict[str, Any]) -> dict[str, Any]:
    """A config as it is written now, of one that any version wrote.

    Args:
        config: nested, as in a run directory, or flat with dotted names, as in a record.
    """
    flat = dict(_leaves(config, ""))
    absent = {
        name: value
        for name, value in NOT_YET_THERE.items()
        if name not in flat and name.startswith(f"options.{flat.get('recipe')}.")
    }
    if flat.get("model.name") == "mlp" and "model.tanh" not in flat:
        absent["model.tanh"] = False
    present = _replaced(config, "")
    for name, value in absent.items():
        at = present
        *parts, field = name.split(".") if "model" in config else (name,)
        for part in parts:
            at = at.setdefault(part, {})
        at[field] = value
    return present


def read_given(config: ConfigDict) -> ConfigDict:
    """A config that is given, with None where it has the number that once stood for it."""
    present = ConfigDict(config)
    for name, value in _leaves(config.to_dict(), ""):
        if _stands_for_none(name, value):
            present.update_from_flattened_dict({name: None})
    return present


def written_earlier(fields: dict[str, Any]) -> dict[str, Any]:
    """A flat config as the versions wrote it that had no None: what hashes are made of.

    An MLP had no `tanh` then but on the features of an encoder, and all covariances were full.
    """
    new = set()
    if "encoder.pooling" not in fields and not fields.get("model.tanh"):
        new.add("model.tanh")
    covariance = f"options.{fields.get('recipe')}.covariance"
    if fields.get(covariance) == "full":
        new.add(covariance)
    return {
        name: _number(name) if value is None else value
        for name, value in fields.items()
        if name not in new
    }


def _replaced(config: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        key: _replaced(value, f"{prefix}{key}.")
        if isinstance(value, dict)
        else None
        if _stands_for_none(f"{prefix}{key}", value)
        else value
        for key, value in config.items()
    }


def _leaves(config: dict[str, Any], prefix: str):
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _stands_for_none(name: str, value: Any) -> bool:
    number = _number(name)
    return number is not None and type(value) in (int, float) and value == number


def _number(name: str) -> float | None:
    matching = (x for pattern, x in STOOD_FOR_NONE.items() if fnmatch.fnmatchcase(name, pattern))
    return next(matching, None)
