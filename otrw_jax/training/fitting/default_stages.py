"""The two stages of the method, for those who choose nothing else."""

import dataclasses

import optax

from otrw_jax.checks import check_number
from otrw_jax.methods.erm import erm
from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.methods.ot.reweight import ot_reweight
from otrw_jax.methods.presets import PRESETS
from otrw_jax.models.model import Model
from otrw_jax.training.features import given_features, on_frozen_backbone
from otrw_jax.training.stages import Stage

FIRST_SGD = optax.sgd(0.1, momentum=0.9)
SECOND_SGD = optax.sgd(0.01, momentum=0.9)
WEIGHT_SGD = optax.sgd(0.01)


def two_stages(
    model: Model,
    num_classes: int,
    *,
    preset: str | OTReweighting = "global",
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation] = (
        FIRST_SGD,
        SECOND_SGD,
    ),
    weight_optimizer: optax.GradientTransformation = WEIGHT_SGD,
    epochs: tuple[int, int] = (60, 20),
    batch_sizes: tuple[int, int] = (100, 100),
    trainable: str | None = None,
    feature_copies: int = 0,
) -> tuple[Stage, Stage]:
    """Cross-entropy on the whole network, then OT re-weighting.

    Guo et al., Learning to Re-weight Examples with Optimal Transport for Imbalanced
    Classification, NeurIPS 2022.

    Args:
        model: the network.
        num_classes: K.
        preset: a name of `PRESETS`, or choices of one's own.
        optimizers: of the network, one a stage.
        weight_optimizer: of the weights; sees one example at a time. The global preset needs none.
        epochs: passes over the training set, one number a stage.
        batch_sizes: examples a step, one number a stage.
        trainable: which parameters the second stage trains, as in `split_params`: `"head/.*"`, or
            `".*"` for the whole network. The preset's own by default: the head, but of `"paper"`
            the whole network.
        feature_copies: of the second stage, as of `Stage`: with a frozen backbone, features are
            computed once and kept. 1 is exact where nothing is augmented.

    Returns:
        The stages "stage1" and "stage2".

    Raises:
        ValueError: there is no such preset, or a number is out of its range.
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise ValueError(f"two_stages: preset is {preset!r}; choose {', '.join(PRESETS)}.")
    for name, both in {"epochs": epochs, "batch_sizes": batch_sizes}.items():
        for number in both:
            check_number("two_stages", name, number, least=1, whole=True)
    check_number("two_stages", "feature_copies", feature_copies, least=0, whole=True)
    choices = PRESETS[preset](num_classes) if isinstance(preset, str) else preset
    if trainable is not None:
        choices = dataclasses.replace(choices, trainable=trainable)
    seen = given_features(model) if feature_copies else model
    second = ot_reweight(seen, optimizers[1], weight_optimizer, num_classes, choices)
    if feature_copies:
        second = on_frozen_backbone(second, choices.trainable)
    return (
        Stage("stage1", erm(model, optimizers[0]), epochs[0], batch_sizes[0]),
        Stage("stage2", second, epochs[1], batch_sizes[1], feature_copies),
    )
