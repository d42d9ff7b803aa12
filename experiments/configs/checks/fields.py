"""The range of every field of a config; and a config checked against these and `relations`.

All of it is checked before anything is loaded or trained, so that no mistake is told late.
"""

import fnmatch
import functools
from typing import Any, get_args

import flax.traverse_util
from ml_collections import ConfigDict

from experiments.configs.checks.relations import RELATIONS
from experiments.configs.checks.rules import (
    NONE,
    PATTERN,
    YES_OR_NO,
    Rule,
    each,
    first_not_finite,
    number,
    one_of,
    whole,
)
from otrw_jax.data.splits import PROFILES
from otrw_jax.training.stages import MetaAugmentation

SEED = whole(0, 2**32 - 1)
POSITIVE, NOT_NEGATIVE = number(0, without="low"), number(0)
SHARE, BELOW_ONE = number(0, 1), number(0, 1, without="high")

_COLOURS = each(number(0, 1, without="low"), least=3, most=3)

RULES: dict[str, Rule] = {
    # The run
    "seed": SEED,
    "subset_seed": SEED,
    "seeds": each(SEED),
    "evaluate_every": whole(1),
    "checkpoint_every": whole(1),
    "keep_checkpoints": whole(1),
    "devices": whole(0),
    "seeds_at_once": NONE | whole(0),
    "steps_per_call": NONE | whole(0),
    "recalibration_epochs": whole(0),
    "shots.*": whole(0),
    # The data
    "data.imbalance_factor": NONE | number(1),
    "data.profile": one_of(*PROFILES),
    "data.*_per_class": whole(0),
    "data.counts": each(whole(1), least=2),
    "data.first": whole(0),
    "data.meta_from": one_of("first", "meta", "validation", "train", "within"),
    "data.scaling": one_of("length", "none"),
    "data.points": whole(1, 1024),
    "data.padding": one_of("reflect", "zero"),
    "data.augment": YES_OR_NO,
    "data.max_excluded": whole(0),
    "data.test_share": number(0.01, 0.9),
    # Of images that are streamed
    "data.stored": whole(8),
    "data.side": whole(8),
    "data.jitter": SHARE,
    "data.mean": _COLOURS,
    "data.deviation": _COLOURS,
    "data.threads": whole(1),
    "save_every": whole(1),
    # The encoder of sentences, and that of images
    "encoder.max_length": whole(3),
    "encoder.unit_length": YES_OR_NO,
    "encoder.lowercase": YES_OR_NO,
    "encoder.side": whole(8),
    "encoder.crop": one_of("center", "none"),
    "encoder.resize": whole(8),
    "encoder.mean": _COLOURS,
    "encoder.deviation": _COLOURS,
    "encoder.fine_tuning.epochs": whole(0),
    # The network
    "model.depth": whole(1),
    "model.width": whole(1),
    "model.dtype": one_of("float32", "bfloat16"),
    "model.tanh": YES_OR_NO,
    "model*.hidden": each(whole(1)),
    "model*.widths": each(whole(1), least=1),
    "model.level?.radius": POSITIVE,
    "model.level?.*": whole(1),
    # A recipe's own fields
    "options.hu.tau": number(1),
    "options.tau_norm.tau": NONE | NOT_NEGATIVE,
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
    "options.*.covariance": one_of("full", "diagonal"),
    "options.*.augment_meta": one_of(*get_args(MetaAugmentation)),
    # Stages
    "*.levers.mixup": NOT_NEGATIVE,
    "*.levers.smoothing": BELOW_ONE,
    "*.levers.smoothing_tail": NONE | BELOW_ONE,
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
    "*.choices.label_weight": NONE | NOT_NEGATIVE,
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


@functools.cache
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
