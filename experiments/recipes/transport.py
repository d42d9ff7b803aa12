"""Recipes of OT re-weighting, on the network of a first stage of cross-entropy."""

import functools
from collections.abc import Callable

import flax.linen as nn
from ml_collections import ConfigDict

from experiments.recipes.base import Context, Recipe
from otrw_jax.losses import cross_entropy
from otrw_jax.methods import presets
from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.methods.ot.reweight import ot_reweight
from otrw_jax.methods.ot.weight_net import ot_weight_net
from otrw_jax.ot.entropic import EntropicOT
from otrw_jax.ot.nets import AttentionWeightNet, MLPWeightNet
from otrw_jax.training.stages import MetaAugmentation, Stage


def reweighting_of(choices: ConfigDict, num_classes: int) -> OTReweighting:
    """The choices of a second stage's section; a label weight of None is one over K.

    Raises:
        ValueError: they do not go together.
    """
    fields = choices.to_dict()
    if fields["label_weight"] is None:
        fields["label_weight"] = 1 / num_classes
    return OTReweighting(**{**fields, "ot": EntropicOT(**fields["ot"])})


def _ot(c: Context, augment_meta: MetaAugmentation = "never") -> list[Stage]:
    def make(model, optimizer, axis_name):
        return ot_reweight(
            model,
            optimizer,
            c.optimizer(c.second.weight_optimizer, c.second),
            c.num_classes,
            reweighting_of(c.second.choices, c.num_classes),
            loss=c.smoothed(c.second, cross_entropy),
            axis_name=axis_name,
        )

    return [c.erm_stage(), c.stage(make, c.second, augment_meta)]


NETS: dict[str, Callable[..., nn.Module]] = {
    "attention": AttentionWeightNet,
    "attention_diagonal": functools.partial(AttentionWeightNet, pooling="diagonal"),
    "mlp": MLPWeightNet,
}


def net_of(options: ConfigDict) -> nn.Module:
    """The weight net of `config.options.otrw_net`.

    Raises:
        ValueError: there is no such net.
    """
    if options.net not in NETS:
        raise ValueError(f"net is {options.net!r}; choose {', '.join(NETS)}.")
    return NETS[options.net](hidden=options.hidden)


def _ot_net(c: Context) -> list[Stage]:
    def make(model, optimizer, axis_name):
        return ot_weight_net(
            model,
            optimizer,
            net_of(c.options),
            c.optimizer(c.second.weight_optimizer, c.second),
            c.num_classes,
            reweighting_of(c.second.choices, c.num_classes),
            net_input=c.options.net_input,
            loss=c.smoothed(c.second, cross_entropy),
            axis_name=axis_name,
        )

    return [c.erm_stage(), c.stage(make, c.second)]


weight_net = Recipe(
    "cross-entropy, then OT re-weighting by a net that gives the weights",
    _ot_net,
    {"net": "attention", "net_input": "features", "hidden": 128},
    second={},
    preset=presets.paper,
    trains_first="cross-entropy",
)

paper = Recipe(
    "cross-entropy, then OT re-weighting as the paper's text has it",
    _ot,
    second={},
    preset=presets.paper,
    trains_first="cross-entropy",
)
released = Recipe(
    "cross-entropy, then OT re-weighting as the authors' program has it",
    lambda c: _ot(c, c.options.augment_meta),
    {"augment_meta": "epoch"},
    second={},
    preset=presets.released,
    trains_first="cross-entropy",
)
global_weights = Recipe(
    "cross-entropy, then the global closed-form weights in the loss",
    _ot,
    second={},
    preset=presets.global_weights,
    trains_first="cross-entropy",
)
global_sampling = Recipe(
    "cross-entropy, then examples drawn by the global weights",
    _ot,
    second={},
    preset=functools.partial(presets.global_weights, sampling=True),
    trains_first="cross-entropy",
)
