"""A run that is extended: more epochs, or another rate, from its last checkpoint on."""

import pathlib
from collections import Counter

from otrw_jax.training.checkpoints import Checkpoints

RATES = ("learning_rate", "milestones", "decay", "warmup_epochs", "schedule")

Changes = dict[str, list]
"""From a field to its values before and after."""


def is_extendable(name: str) -> bool:
    """Whether a field is one that an extension may change, in a stage that is not behind."""
    *_, section, field = ("", *name.split("."))
    if field == "epochs":
        return name.startswith(("stage1.", "stage2."))
    rate = field in RATES and section in ("optimizer", "weight_optimizer")
    return rate or field == "virtual_learning_rate"


def check_changes(workdir: pathlib.Path, config: dict, changes: Changes) -> None:
    """Refuses changes of what the run already has behind it.

    Args:
        workdir: the run directory.
        config: the run's, flat.
        changes: of its fields.

    Raises:
        ValueError: a field is no rate and no number of epochs, its stage is behind the run, or the
            epochs are fewer than are done.
    """
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        done = Counter(record["stage"] for record in checkpoints.record()["history"])
    second = next((n for n in config if n.startswith("stage2.") and n.endswith(".epochs")), None)
    ends = {"stage1": "stage1.epochs"} | ({"stage2": second} if second else {})
    last = "stage2" if second else "recalibration" if config["recalibration_epochs"] else "stage1"
    for name, (_, value) in changes.items():
        stage = name.partition(".")[0]
        behind = stage != last and stage in ends and done[stage] >= config[ends[stage]]
        if not is_extendable(name) or behind:
            why = f"{stage} is behind" if is_extendable(name) else "it is neither"
            raise ValueError(
                f"--extend changes the epochs and the rates of a stage that is not behind the run; "
                f"{name} cannot change in {workdir}, since {why}: choose another --workdir, with "
                f"--config.stage1_from={workdir} to take over its first stage."
            )
        if name in ends.values() and value < done[stage]:
            raise ValueError(
                f"{name} is {value}, and the run in {workdir} has {done[stage]} epochs of this "
                f"stage behind it; take {done[stage]} or more."
            )


def in_words(extensions: list[dict]) -> str:
    """Extensions in words."""
    return "; ".join(
        f"after epoch {one['after']}: "
        + ", ".join(f"{name} {old!r} to {new!r}" for name, (old, new) in one["fields"].items())
        for one in extensions
    )


def before_extensions(fields: dict, extensions: list[dict]) -> list[dict]:
    """The flat config as it is, and as it was before each of its extensions."""
    states = [fields]
    for one in reversed(extensions):
        states.append(states[-1] | {name: old for name, (old, _) in one["fields"].items()})
    return states


def other_first_stage(config: dict) -> bool:
    """Whether the first stage is, after extensions, none that its config alone gives."""
    names = [name for one in config.get("extended", []) for name in one["fields"]]
    own = [name for name in names if name.startswith("stage1.")]
    cosine = config["stage1"]["optimizer"]["schedule"] == "cosine"
    return any(cosine or not name.endswith(".epochs") for name in own)
