"""What the configs share: arguments in the config string, stages, levers, OT presets' fields."""

import dataclasses
import difflib
import functools
from collections.abc import Mapping

from ml_collections import ConfigDict

from experiments.recipes import RECIPES
from otrw_jax.methods.presets import PRESETS, global_weights


def parse_arguments(text: str, **defaults):
    """Reads `name=value,name=value` into a ConfigDict of the defaults' names and types.

    Raises:
        ValueError: an unknown name (the nearest known one is suggested), or a bad value.
    """
    arguments = ConfigDict(defaults)
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, 1, 0)
            raise ValueError(
                f"unknown config argument {name!r}; did you mean {near[0]!r}? "
                f"There are {', '.join(defaults)}."
            )
        try:
            arguments[name] = type(defaults[name])(value)
        except ValueError as error:
            kind = type(defaults[name]).__name__
            raise ValueError(f"config argument {name}={value!r} is not of type {kind}.") from error
    return arguments


def base(recipe: str) -> ConfigDict:
    """The fields of every run that no dataset decides."""
    return ConfigDict(
        {
            "recipe": recipe,
            # Of the network's start, the order of the data and the augmentation.
            "seed": 0,
            # Of the choice of examples: training subset, meta set, held-out part.
            "subset_seed": 0,
            # Given, the run is repeated with seed = subset_seed = each of them, in a subfolder.
            "seeds": (),
            # A run, or a network file, whose first stage is taken over instead of trained again.
            "stage1_from": "",
            "evaluate_every": 1,
            "checkpoint_every": 1,
            "keep_checkpoints": 2,
            # Devices of a process that share a batch; 0 is all of them.
            "devices": 1,
            # Of the seeds, how many are trained together: 0 all, -1 chosen for the backend.
            "seeds_at_once": -1,
            # Steps a call of the device runs: 0 the whole epoch, -1 chosen for the backend.
            "steps_per_call": -1,
            "shots": {"many": 100, "few": 20},
            # Epochs of class-balanced passes after the first stage, by which batch normalisation
            # takes its statistics anew.
            "recalibration_epochs": 0,
            # Each recipe's own fields.
            "options": {name: dict(r.options) for name, r in RECIPES.items() if r.options},
        }
    )


def levers() -> ConfigDict:
    """What a stage may take beside its method; all are off. Mixup and SAM go with `erm` alone."""
    return ConfigDict(
        {
            # a of mixup's Beta(a, a).
            "mixup": 0.0,
            # Of the labels; given a tail, the largest class has `smoothing`, the smallest the tail.
            "smoothing": 0.0,
            "smoothing_tail": -1.0,
            # Radius of sharpness-aware minimisation.
            "sam": 0.0,
            # Decay of the network's moving average, which is evaluated and passed on.
            "ema": 0.0,
        }
    )


def first_stage(epochs: int, batch_size: int, optimizer: ConfigDict) -> ConfigDict:
    """The first stage of every recipe."""
    return ConfigDict(
        {
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": optimizer,
            "levers": levers(),
        }
    )


def second_stages(head: ConfigDict, given: Mapping[str, ConfigDict]) -> ConfigDict:
    """The second stages of all recipes that have one: those given, and the head's for the others.

    Args:
        head: how a head is trained on the frozen backbone.
        given: sections by recipe.
    """
    sections = {}
    for name, recipe in RECIPES.items():
        if recipe.second is not None:
            sections[name] = ConfigDict(given.get(name, head))
            sections[name].update(recipe.second)
    return ConfigDict(sections)


def sgd(
    learning_rate: float,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 5e-4,
    milestones: tuple[int, ...] = (),
    decay: float = 0.01,
    warmup_epochs: int = 0,
    schedule: str = "steps",
) -> ConfigDict:
    """SGD whose weight decay is added to the gradient; the rate times `decay` at each milestone.

    Milestones and warm-up are in epochs; the warm-up is linear from zero. With the schedule
    "cosine" the rate falls to zero at the stage's end, without milestones.
    """
    return ConfigDict(
        {
            "name": "sgd",
            "learning_rate": learning_rate,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "milestones": milestones,
            "decay": decay,
            "warmup_epochs": warmup_epochs,
            "schedule": schedule,
        }
    )


def adam(
    learning_rate: float,
    *,
    weight_decay: float = 0.0,
    milestones: tuple[int, ...] = (),
    decay: float = 0.01,
    warmup_epochs: int = 0,
    schedule: str = "steps",
) -> ConfigDict:
    """Adam whose weight decay is added to the gradient, before its moments; the rest as in `sgd`.

    Kingma and Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, with the constants of its
    algorithm 1.
    """
    return ConfigDict(
        {
            "name": "adam",
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "milestones": milestones,
            "decay": decay,
            "warmup_epochs": warmup_epochs,
            "schedule": schedule,
        }
    )


def head_stage(
    epochs: int, batch_size: int, optimizer: ConfigDict, feature_copies: int
) -> ConfigDict:
    """A second stage that trains the head on the frozen backbone."""
    return ConfigDict(
        {
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": optimizer,
            "trainable": "head/.*",
            "batch_norm": False,
            "feature_copies": feature_copies,
            "levers": levers(),
        }
    )


def ot_stage(
    preset: str,
    num_classes: int,
    epochs: int,
    batch_size: int,
    optimizer: ConfigDict,
    weight_optimizer: ConfigDict,
    feature_copies: int = 0,
) -> ConfigDict:
    """A second stage of OT re-weighting, all the preset's choices open to the command line.

    `feature_copies`, with a frozen backbone: how many augmented copies of each example's
    features are computed once and kept in place of the images; 0 for none.

    Raises:
        ValueError: there is no such preset; the nearest is suggested.
    """
    presets = PRESETS | {"global_sampling": functools.partial(global_weights, sampling=True)}
    if preset not in presets:
        near = difflib.get_close_matches(preset, presets, 1, 0)[0]
        raise ValueError(
            f"there is no OT preset {preset!r}; did you mean {near!r}? There are "
            f"{', '.join(presets)}."
        )
    choices = presets[preset](num_classes)
    fields = {"virtual_learning_rate": optimizer.learning_rate}
    choices = dataclasses.asdict(dataclasses.replace(choices, **fields))
    del choices["ot"]["newton"]  # How an OT problem is solved, and not which.
    return ConfigDict(
        {
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": optimizer,
            "weight_optimizer": weight_optimizer,
            "feature_copies": feature_copies,
            "levers": levers(),
            "choices": choices,
        }
    )
