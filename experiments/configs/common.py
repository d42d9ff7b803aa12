"""What the configs share: their arguments, fields of every run, stages, levers, optimisers."""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from experiments.recipes import RECIPES
from otrw_jax.checks import nearest


def parse_arguments(text: str, **defaults) -> ConfigDict:
    """Reads `name=value,name=value`, as `--config=FILE:name=value,name=value` has it.

    Args:
        text: the arguments.
        defaults: by name; a type in place of a default is that of an argument that is None where
            it is not given.

    Returns:
        A ConfigDict of the defaults' names and types.

    Raises:
        ValueError: an unknown name (the nearest known one is suggested), or a bad value.
    """
    types = {name: d if isinstance(d, type) else type(d) for name, d in defaults.items()}
    arguments = ConfigDict(
        {name: None if isinstance(d, type) else d for name, d in defaults.items()}
    )
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        if name not in defaults:
            raise ValueError(
                f"unknown config argument {name!r}; did you mean {nearest(name, defaults)!r}? "
                f"There are {', '.join(defaults)}."
            )
        try:
            arguments[name] = types[name](value)
        except ValueError as error:
            kind = types[name].__name__
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
            # Of the seeds, how many are trained together: 0 all, None as the backend gains by it.
            "seeds_at_once": None,
            # Steps a call of the device runs: 0 a whole epoch, None as the backend gains by it.
            "steps_per_call": None,
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
            "smoothing_tail": None,
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


def second_stages(
    num_classes: int, head: ConfigDict, transport: Mapping[str, ConfigDict]
) -> ConfigDict:
    """The second stages of all recipes that have one, with what each recipe sets in its own.

    Args:
        num_classes: K.
        head: how a head is trained on the frozen backbone (`head_stage`).
        transport: of the recipes of OT re-weighting, how their networks and weights are trained
            (`ot_stage`), by name; their choices are the recipe's own preset.
    """
    sections = {}
    for name, recipe in RECIPES.items():
        if recipe.second is None:
            continue
        # A copy: sections that share an optimiser would change together.
        sections[name] = ConfigDict((transport[name] if recipe.preset else head).to_dict())
        if recipe.preset:
            choices = dataclasses.asdict(recipe.preset(num_classes))
            del choices["ot"]["newton"]  # How an OT problem is solved, and not which.
            choices["virtual_learning_rate"] = sections[name].optimizer.learning_rate
            sections[name].choices = ConfigDict(choices)
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
    epochs: int,
    batch_size: int,
    optimizer: ConfigDict,
    weight_optimizer: ConfigDict,
    feature_copies: int = 0,
) -> ConfigDict:
    """A second stage of OT re-weighting; `second_stages` adds the choices of its recipe.

    `feature_copies`, with a frozen backbone: how many augmented copies of each example's
    features are computed once and kept in place of the images; 0 for none.
    """
    return ConfigDict(
        {
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": optimizer,
            "weight_optimizer": weight_optimizer,
            "feature_copies": feature_copies,
            "levers": levers(),
        }
    )
