"""Recipes of one stage that differ from cross-entropy in the loss, its weights or its head."""

from experiments.recipes.base import Recipe
from otrw_jax import losses
from otrw_jax.methods.erm import deferred, influence
from otrw_jax.models.heads import CosineHead, LinearHead

BETA = {"beta": 0.9999}

cross_entropy = Recipe("cross-entropy", lambda c: [c.erm_stage()], trains_first="cross-entropy")

focal = Recipe(
    "focal loss",
    lambda c: [c.erm_stage(loss=losses.focal(c.options.gamma))],
    {"gamma": 1.0},
    trains_first="focal",
)


def _effective_numbers(c):
    return losses.effective_number_weights(c.counts, c.options.beta)


class_balanced = Recipe(
    "cross-entropy with effective-number weights of the classes",
    lambda c: [c.erm_stage(class_weights=_effective_numbers(c))],
    BETA,
    trains_first="class-balanced cross-entropy",
)

class_balanced_focal = Recipe(
    "focal loss with effective-number weights of the classes",
    lambda c: [
        c.erm_stage(loss=losses.focal(c.options.gamma), class_weights=_effective_numbers(c))
    ],
    BETA | {"gamma": 1.0},
    trains_first="class-balanced focal",
)

proportion = Recipe(
    "cross-entropy with inverse-frequency weights of the classes",
    lambda c: [c.erm_stage(class_weights=losses.inverse_frequency_weights(c.counts))],
    trains_first="proportion",
)

balanced_softmax = Recipe(
    "balanced softmax",
    lambda c: [c.erm_stage(loss=losses.balanced_softmax(c.counts))],
    trains_first="balanced softmax",
)

logit_adjusted = Recipe(
    "logit-adjusted loss",
    lambda c: [c.erm_stage(loss=losses.logit_adjusted(c.counts, c.options.tau))],
    {"tau": 1.0},
    trains_first="logit-adjusted",
)


def ldam_loss(c):
    """The margin loss of `options`."""
    return losses.ldam(c.counts, c.options.max_margin, c.options.scale)


def scaled(c):
    """To a method whose logits are evaluated with the scale that its loss gives the cosines."""
    scale, model = c.options.scale, c.model
    return lambda method: method._replace(logits=lambda head, z: scale * model.logits(head, z))


LDAM = {"max_margin": 0.5, "scale": 30.0}

ldam = Recipe(
    "label-distribution-aware margins on a cosine head",
    lambda c: [c.erm_stage(wrap=scaled(c), loss=ldam_loss(c))],
    LDAM,
    trains_first="ldam",
    head=CosineHead,
)


def _ldam_drw(c):
    start = c.step_at(c.first, c.options.start)
    weights = deferred(_effective_numbers(c), start)
    return [
        c.erm_stage(
            wrap=scaled(c), loss=ldam_loss(c), class_weights=weights, divide_by_weights=True
        )
    ]


ldam_drw = Recipe(
    "LDAM, with effective-number weights from a share of the epochs on",
    _ldam_drw,
    LDAM | BETA | {"start": 0.8},
    trains_first="ldam_drw",
    head=CosineHead,
)

cosine = Recipe(
    "cross-entropy of scaled cosines: LDAM without margins",
    lambda c: [c.erm_stage(wrap=scaled(c), loss=losses.ldam(c.counts, 0.0, c.options.scale))],
    {"scale": 30.0},
    trains_first="cosine",
    head=CosineHead,
)


def _influence_balanced(loss, weights):
    def stages(c):
        start = c.step_at(c.first, c.options.start)
        return [
            c.erm_stage(
                rate_drop=(start, c.options.rate_factor),
                loss=loss(c),
                class_weights=deferred(weights(c), start),
                factor=influence(c.options.alpha, start=start),
            )
        ]

    return stages


def _inverse_frequencies(c):
    return losses.inverse_frequency_weights(c.counts)


# The rate falls where the loss changes: α multiplies the gradient.
INFLUENCE = {"alpha": 1000.0, "start": 0.5, "rate_factor": 0.01}

influence_balanced = Recipe(
    "influence-balanced loss from a share of the epochs on",
    _influence_balanced(lambda c: losses.cross_entropy, _inverse_frequencies),
    INFLUENCE,
    trains_first="ib",
    head=LinearHead,
)

influence_balanced_cb = Recipe(
    "influence-balanced loss, effective-number weights",
    _influence_balanced(lambda c: losses.cross_entropy, _effective_numbers),
    INFLUENCE | BETA,
    trains_first="ib_cb",
    head=LinearHead,
)

influence_balanced_focal = Recipe(
    "influence-balanced focal loss",
    _influence_balanced(lambda c: losses.focal(c.options.gamma), _inverse_frequencies),
    INFLUENCE | {"gamma": 1.0},
    trains_first="ib_focal",
    head=LinearHead,
)
