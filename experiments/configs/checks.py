"""What a config may hold: a range for every field, and which fields go together.

All of it is checked before anything is loaded or trained, so that no mistake is told late.
"""

import fnmatch
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, get_args

import flax.traverse_util
from ml_collections import ConfigDict

from experiments.configs.common import levers
from experiments.configs.rules import (
    DEPTH,
    PATTERN,
    YES_OR_NO,
    Rule,
    each,
    exactly,
    first_not_finite,
    number,
    one_of,
    whole,
)
from otrw_jax.data.splits import PROFILES
from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.ot.entropic import EntropicOT
from otrw_jax.training.loop import MetaAugmentation

SEED = whole(0, 2**32 - 1)
POSITIVE, NOT_NEGATIVE = number(0, without="low"), number(0)
SHARE, BELOW_ONE = number(0, 1), number(0, 1, without="high")

RULES: dict[str, Rule] = {
    # The run
    "seed": SEED,
    "subset_seed": SEED,
    "seeds": each(SEED),
    "evaluate_every": whole(1),
    "checkpoint_every": whole(1),
    "keep_checkpoints": whole(1),
    "devices": whole(0),
    "seeds_at_once": whole(-1),
    "steps_per_call": whole(-1),
    "recalibration_epochs": whole(0),
    "shots.*": whole(0),
    # The data
    "data.imbalance_factor": number(1),
    "data.profile": one_of(*PROFILES),
    "data.*_per_class": whole(0),
    "data.counts": each(whole(1), least=2),
    "data.first": whole(0),
    "data.points": whole(1, 1024),
    "data.padding": one_of("reflect", "zero"),
    "data.augment": YES_OR_NO,
    # The encoder of sentences
    "encoder.max_length": whole(3),
    "encoder.unit_length": YES_OR_NO,
    "encoder.lowercase": YES_OR_NO,
    "encoder.fine_tuning.epochs": whole(0),
    # The network
    "model.depth": DEPTH,
    "model.width": whole(1),
    "model.dtype": one_of("float32", "bfloat16"),
    "model.tanh": YES_OR_NO,
    "model*.hidden": each(whole(1)),
    "model*.widths": each(whole(1), least=1),
    "model.level?.radius": POSITIVE,
    "model.level?.*": whole(1),
    # A recipe's own fields
    "options.hu.tau": number(1),
    "options.tau_norm.tau": exactly(-1) | NOT_NEGATIVE,
    "options.metasaug_ldam.max_margin": NOT_NEGATIVE,
    "options.*.max_margin": number(0, 2),
    "options.*.tau": NOT_NEGATIVE,
    "options.*.gamma": NOT_NEGATIVE,
    "options.*.beta": BELOW_ONE,
    "options.*.scale": POSITIVE,
    "options.*.start": SHARE,
    "options.*.alpha": POSITIVE,
    "options.*.rho": NOT_NEGATIVE,
    "options.*.l2": POSITIVE,
    "options.*.epsilon": POSITIVE,
    "options.*.iterations": whole(1),
    "options.*.strength": NOT_NEGATIVE,
    "options.*.meta_batch": whole(1),
    "options.*.hidden": whole(1),
    "options.*.net_weight_decay": NOT_NEGATIVE,
    "options.*.virtual_learning_rate": NOT_NEGATIVE,
    "options.*.rate_factor": number(0, 1, without="low"),
    "options.*.augment_meta": one_of(*get_args(MetaAugmentation)),
    # Stages
    "*.levers.mixup": NOT_NEGATIVE,
    "*.levers.smoothing": BELOW_ONE,
    "*.levers.smoothing_tail": exactly(-1) | BELOW_ONE,
    "*.levers.sam": NOT_NEGATIVE,
    "*.levers.ema": BELOW_ONE,
    "*optimizer.name": one_of("sgd", "adam"),
    "*optimizer.schedule": one_of("steps", "cosine"),
    "*.weight_optimizer.learning_rate": NOT_NEGATIVE,
    "*.momentum": BELOW_ONE,
    "*.nesterov": YES_OR_NO,
    "*.weight_decay": NOT_NEGATIVE,
    "*.milestones": each(whole(1)),
    "*.decay": number(0, 1, without="low"),
    "*.warmup_epochs": whole(0),
    "*.choices.feature_weight": NOT_NEGATIVE,
    "*.choices.label_weight": NOT_NEGATIVE,
    "*.choices.measure_size": whole(1),
    "*.choices.virtual_learning_rate": NOT_NEGATIVE,
    "*.choices.meta_cross_entropy": NOT_NEGATIVE,
    "*.choices.ot.epsilon": POSITIVE,
    "*.choices.ot.max_iterations": whole(1),
    "*.choices.ot.threshold": NOT_NEGATIVE,
    "*.choices.from_scratch": YES_OR_NO,
    "*.choices.sampling": YES_OR_NO,
    "*.choices.second_order": YES_OR_NO,
    "*.choices.meta_batch_norm": YES_OR_NO,
    "*.trainable": PATTERN,
    "*.batch_norm": YES_OR_NO,
    "*.feature_copies": whole(0),
    "*.epochs": whole(1),
    "*.batch_size": whole(1),
    "*learning_rate": POSITIVE,
}
"""Pattern of a field's dotted name to its range; the first that matches counts."""


def rule_of(name: str) -> Rule | None:
    """The range of a field by its dotted name, or None where any value will do."""
    return next((r for pattern, r in RULES.items() if fnmatch.fnmatchcase(name, pattern)), None)


def check_config(config: ConfigDict) -> None:
    """Checks every field of a config, and that they go together; the first mistake is told.

    Args:
        config: as a config file gives it, or with one recipe's sections alone.

    Raises:
        ValueError: a field is out of its range; its name, value and range are told.
    """
    fields = flax.traverse_util.flatten_dict(config.to_dict(), sep=".")
    for name, value in fields.items():
        check_field(name, value)
    for relation in RELATIONS:
        for problem in relation(config):
            raise ValueError(problem)


def check_field(name: str, value: Any) -> None:
    """Checks one field against its range.

    Raises:
        ValueError: it is outside, or not finite.
    """
    rule = rule_of(name)
    if rule is not None and not rule.holds(value):
        raise ValueError(f"{name} is {value!r}; it must be {rule.range}.")
    if first_not_finite(value) is not None:
        raise ValueError(f"{name} is {value!r}; it must be finite.")


def expand_paths(config: ConfigDict) -> None:
    """Puts the user's home in the place of `~` in the paths of a config.

    Raises:
        ValueError: there is no such user.
    """
    parts = {"data": ("data_dir", "manual_dir"), "encoder": ("folder",)}
    places = [
        (config[part], name)
        for part, names in parts.items()
        if part in config
        for name in names
        if name in config[part]
    ]
    for section, name in [(config, "stage1_from"), *places]:
        if section[name]:
            section[name] = expanded(section[name], name)


def expanded(path: str | os.PathLike, name: str) -> str:
    """A path with the user's home in the place of `~`.

    Args:
        path: such as ~/runs.
        name: of the field or flag that it is given by.

    Raises:
        ValueError: there is no such user.
    """
    try:
        return str(pathlib.Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{name} is {str(path)!r}, and there is no such user.") from error


def check_controls(config: ConfigDict) -> None:
    """Checks what the table of controls needs of a config beside.

    Args:
        config: with the sections of all recipes.

    Raises:
        ValueError: there is no meta set; a stage of which cells are made has a lever, which they
            have not; or a schedule does not fit the epochs of the head, in which they train.
    """
    if not config.data.meta_per_class:
        raise ValueError(
            "data.meta_per_class is 0, and the controls need a meta set: take 1 or more."
        )
    epochs = config.stage2.cb.epochs
    for recipe in ("cb", "otrw_paper", "otrw_released", "otrw_global"):
        section = config.stage2[recipe]
        for lever, off in levers().items():
            given = section.levers[lever]
            if given != off:
                raise ValueError(
                    f"stage2.{recipe}.levers.{lever} is {given}; the controls train heads without "
                    f"levers: leave it at {off}."
                )
        if "weight_optimizer" in section:
            name = f"stage2.{recipe}.weight_optimizer"
            for problem in _schedule(name, section.weight_optimizer, epochs):
                raise ValueError(f"{problem} The controls have the {epochs} of stage2.cb.")


def sections(config: ConfigDict) -> dict[str, ConfigDict]:
    """The stages' sections of a config, by dotted name."""
    return {"stage1": config.stage1} | {f"stage2.{k}": v for k, v in config.stage2.items()}


def _distinct_seeds(config: ConfigDict) -> Iterator[str]:
    if len(set(config.seeds)) < len(config.seeds):
        yield f"seeds={tuple(config.seeds)} has one twice; give each once."


def _shots(config: ConfigDict) -> Iterator[str]:
    many, few = config.shots.many, config.shots.few
    if few > many:
        yield (
            f"shots.few is {few} and shots.many is {many}: no class would be medium-shot; take "
            "a few that is not above many."
        )


def _batch_statistics(config: ConfigDict) -> Iterator[str]:
    if config.recalibration_epochs and config.model.name == "mlp":
        yield (
            f"recalibration_epochs is {config.recalibration_epochs}, and model.name is 'mlp', "
            "which keeps no batch statistics; set recalibration_epochs=0."
        )


def _schedules(config: ConfigDict) -> Iterator[str]:
    for name, section in sections(config).items():
        for kind in ("optimizer", "weight_optimizer"):
            if kind in section:
                yield from _schedule(f"{name}.{kind}", section[kind], section.epochs)


def _schedule(name: str, optimizer: ConfigDict, epochs: int) -> Iterator[str]:
    milestones, warmup = tuple(optimizer.milestones), optimizer.warmup_epochs
    if optimizer.schedule == "cosine" and milestones:
        yield f"{name}.milestones is {milestones}: a cosine has no milestones; set milestones=()."
    if list(milestones) != sorted(set(milestones)):
        yield f"{name}.milestones is {milestones}; each must be later than the one before."
    if warmup >= epochs:
        yield (
            f"{name}.warmup_epochs is {warmup}, and its stage has {epochs} epochs; it must be "
            "shorter."
        )
    if milestones and not warmup < milestones[0] <= milestones[-1] < epochs:
        yield (
            f"{name}.milestones is {milestones}; each must lie after the warm-up of {warmup} "
            f"epochs and before the {epochs} epochs of its stage end: move them, or set "
            "milestones=()."
        )
    if optimizer.get("nesterov") and not optimizer.momentum:
        yield f"{name}.nesterov needs a momentum, which is 0; set nesterov=False or a momentum."


def _smoothing(config: ConfigDict) -> Iterator[str]:
    for name, section in sections(config).items():
        tail = section.levers.smoothing_tail
        if tail > 0 and not section.levers.smoothing:
            yield (
                f"{name}.levers.smoothing_tail is {tail}, and smoothing is 0, which turns both "
                "off; set a smoothing above 0."
            )


def _choices(config: ConfigDict) -> Iterator[str]:
    for name, section in config.stage2.items():
        if "choices" in section:
            choices = section.choices.to_dict()
            try:
                OTReweighting(**{**choices, "ot": EntropicOT(**choices["ot"])})
            except ValueError as error:
                yield f"stage2.{name}.choices: {error}"


RELATIONS: tuple[Callable[[ConfigDict], Iterator[str]], ...] = (
    _distinct_seeds,
    _shots,
    _batch_statistics,
    _schedules,
    _smoothing,
    _choices,
)
"""From a config whose fields are each in range to what is wrong with them together."""
