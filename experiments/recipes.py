"""From a config to a network and to the stages of a recipe."""

import difflib

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from otrw_jax import erm, ot_reweight
from otrw_jax.backbones.heads import LinearHead
from otrw_jax.backbones.mlp import MLP
from otrw_jax.backbones.resnet_cifar import ResNetCifar
from otrw_jax.features import given_features
from otrw_jax.losses import effective_number_weights
from otrw_jax.methods.ot_problem import OTReweighting
from otrw_jax.model import Model, flax_model
from otrw_jax.ot.transport import EntropicOT
from otrw_jax.train import Stage

RECIPES = {
    "ce": "cross-entropy",
    "cb": "cross-entropy, then class-balanced weights on the head",
    "otrw_paper": "cross-entropy, then OT re-weighting as the paper's text has it",
    "otrw_released": "cross-entropy, then OT re-weighting as the authors' program has it",
    "otrw_global": "cross-entropy, then the global closed-form weights in the loss",
    "otrw_global_sampling": "cross-entropy, then examples drawn by the global weights",
}
"""Name to what it does; every recipe but `ce` has a section of `config.stage2`."""


ALIASES = {"otrw": "otrw_paper"}
"""Short names: the method, where no reading of it is named, is the paper's text."""


def make_model(config: ConfigDict, num_classes: int, axis_name: str | None = None) -> Model:
    """The network of `config.model`; batch normalisation takes its moments over the axis."""
    match config.name:
        case "mlp":
            backbone = MLP(hidden=tuple(config.hidden))
        case "resnet_cifar":
            backbone = ResNetCifar(
                depth=config.depth,
                width=config.width,
                axis_name=axis_name,
                dtype=activation_type(config.dtype),
            )
        case _:
            raise ValueError(f"model.name is {config.name!r}; choose mlp or resnet_cifar.")
    return flax_model(backbone, LinearHead(num_classes))


def activation_type(name: str):
    """The type of the activations; parameters, batch statistics and losses are float32.

    Raises:
        ValueError: it is neither float32 nor bfloat16.
    """
    types = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if name not in types:
        raise ValueError(f"model.dtype is {name!r}; choose {' or '.join(types)}.")
    return types[name]


def make_stages(
    config: ConfigDict, model: Model, counts: np.ndarray, axis_name: str | None = None
) -> list[Stage]:
    """The stages of `config.recipe`.

    Args:
        config: the whole config.
        model: the network.
        counts: training examples of each class, `[K]`.
        axis_name: mapped axis over which batches are spread.

    Raises:
        ValueError: features are to be kept of a backbone that is not frozen.
    """
    total = int(counts.sum())
    first = config.stage1
    optimizer = make_optimizer(first.optimizer, total // first.batch_size)
    method = erm(model, optimizer, axis_name=axis_name)
    stages = [Stage("stage1", method, first.epochs, first.batch_size)]
    if config.recipe == "ce":
        return stages
    second = config.stage2[config.recipe]
    optimizer = make_optimizer(second.optimizer, total // second.batch_size)
    if second.feature_copies:
        _require_frozen(second if config.recipe == "cb" else second.choices)
        model = given_features(model)
    if config.recipe == "cb":
        method = erm(
            model,
            optimizer,
            class_weights=effective_number_weights(counts, second.beta),
            trainable=second.trainable,
            batch_norm=second.batch_norm,
            axis_name=axis_name,
        )
    else:
        choices = second.choices.to_dict()
        choices["ot"] = EntropicOT(**choices["ot"])
        method = ot_reweight(
            model,
            optimizer,
            make_optimizer(second.weight_optimizer, 1),
            len(counts),
            OTReweighting(**choices),
            axis_name=axis_name,
        )
    return [*stages, Stage("stage2", method, second.epochs, second.batch_size)]


def _require_frozen(choices: ConfigDict) -> None:
    frozen = choices.trainable.startswith("head/") and not choices.batch_norm
    if not frozen or choices.get("measure") == "prototype_input":
        raise ValueError(
            "feature_copies keeps the features of a frozen backbone in evaluation mode: set "
            "trainable='head/.*', batch_norm=False and a measure of features, or feature_copies=0."
        )


def recipe_name(name: str) -> str:
    """The full name of a recipe.

    Raises:
        ValueError: there is none; the nearest is suggested.
    """
    name = ALIASES.get(name, name)
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 1, 0)[0]
        raise ValueError(
            f"recipe {name!r} is unknown; did you mean {near!r}? There are {', '.join(RECIPES)}."
        )
    return name


def make_optimizer(config: ConfigDict, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD as `configs.common.sgd` describes it."""
    if config.name != "sgd":
        raise ValueError(f"optimizer.name is {config.name!r}; there is sgd.")
    schedule = optax.piecewise_constant_schedule(
        config.learning_rate,
        {epoch * steps_per_epoch: config.decay for epoch in config.milestones},
    )
    if config.warmup_epochs:
        steps = config.warmup_epochs * steps_per_epoch
        warmup = optax.linear_schedule(0.0, config.learning_rate, steps)
        after = schedule
        schedule = optax.join_schedules([warmup, lambda step: after(step + steps)], [steps])
    constant = not config.milestones and not config.warmup_epochs
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(
            config.learning_rate if constant else schedule,
            momentum=config.momentum or None,
            nesterov=config.nesterov,
        ),
    )
