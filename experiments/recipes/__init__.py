"""The recipes by name, one line each; each file holds those of one kind."""

import numpy as np
from ml_collections import ConfigDict

from experiments.recipes import branches, continued, heads, losses, meta, samplers, transport
from experiments.recipes.base import Context, Recipe
from otrw_jax.checks import nearest
from otrw_jax.methods.wrappers.recalibration import recalibration
from otrw_jax.models.model import Model
from otrw_jax.training.stages import Stage

RECIPES: dict[str, Recipe] = {
    # Losses
    "ce": losses.cross_entropy,
    "focal": losses.focal,
    "cb_ce": losses.class_balanced,
    "cb_focal": losses.class_balanced_focal,
    "proportion": losses.proportion,
    "balanced_softmax": losses.balanced_softmax,
    "logit_adjusted": losses.logit_adjusted,
    "ldam": losses.ldam,
    "ldam_drw": losses.ldam_drw,
    "cosine": losses.cosine,
    "ib": losses.influence_balanced,
    "ib_cb": losses.influence_balanced_cb,
    "ib_focal": losses.influence_balanced_focal,
    # Samplers
    "class_balanced_sampling": samplers.class_balanced,
    "square_root_sampling": samplers.square_root,
    "progressive_sampling": samplers.progressively_balanced,
    # Cross-entropy for as many epochs as those of two stages
    "continued": continued.whole_network,
    "continued_head": continued.head,
    # Heads on the backbone of cross-entropy
    "cb": heads.class_balanced,
    "crt": heads.classifier_retraining,
    "lws": heads.learnable_scaling,
    "tau_norm": heads.tau_normalisation,
    "ncm": heads.class_means,
    "disalign": heads.distribution_alignment,
    "oltr": heads.open_long_tailed,
    # Heads fitted to the meta set alone
    "meta_centroids": heads.meta_set_centroids,
    "meta_logistic": heads.meta_set_logistic,
    # Corrections of its logits
    "logit_adjustment": heads.logit_adjustment,
    "ot_correction": heads.transport_correction,
    # Two branches
    "bbn": branches.bilateral,
    # Learned on a meta set
    "l2rw": meta.learning_to_reweight,
    "mwn": meta.weight_net,
    "hu": meta.learned_example_weights,
    "mcw_ce": meta.class_weight,
    "mcw_focal": meta.class_weight_focal,
    "mcw_ldam": meta.class_weight_ldam,
    "metasaug_ce": meta.augmentation,
    "metasaug_focal": meta.augmentation_focal,
    "metasaug_ldam": meta.augmentation_ldam,
    "balanced_meta_softmax": meta.learned_sampling,
    # Optimal transport
    "otrw_paper": transport.paper,
    "otrw_net": transport.weight_net,
    "otrw_released": transport.released,
    "otrw_global": transport.global_weights,
    "otrw_global_sampling": transport.global_sampling,
}
"""Name to recipe."""

ALIASES = {"otrw": "otrw_paper"}
"""Short names: the method, where no reading of it is named, is the paper's text."""


def recipe_name(name: str) -> str:
    """The full name of a recipe.

    Raises:
        ValueError: there is none; the nearest is suggested.
    """
    name = ALIASES.get(name, name)
    if name not in RECIPES:
        near = nearest(name, RECIPES)
        raise ValueError(
            f"recipe {name!r} is unknown; did you mean {near!r}? There are {', '.join(RECIPES)}."
        )
    return name


def make_stages(
    config: ConfigDict,
    model: Model,
    counts: np.ndarray,
    fresh_head=None,
    axis_name: str | None = None,
) -> list[Stage]:
    """The stages of `config.recipe`.

    Args:
        config: the whole config.
        model: the network.
        counts: training examples of each class, `[K]`.
        fresh_head: from a key to the parameters of a new last layer.
        axis_name: mapped axis over which batches are spread.

    Raises:
        ValueError: features are to be kept of a backbone that is not frozen; levers that a method
            does not have.
    """
    name, recipe = config.recipe, RECIPES[config.recipe]
    context = Context(
        recipe=recipe,
        config=config,
        options=config.options[name] if recipe.options else ConfigDict(),
        second=None if recipe.second is None else config.stage2[name],
        model=model,
        counts=counts,
        fresh_head=fresh_head,
        axis_name=axis_name,
    )
    first, *rest = recipe.stages(context)
    if not config.recalibration_epochs:
        return [first, *rest]
    method = recalibration(model, len(counts), axis_name=axis_name)
    anew = Stage("recalibration", method, config.recalibration_epochs, first.batch_size)
    return [first, anew, *rest]
