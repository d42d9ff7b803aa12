"""Stages: what a loop is made of, and the data that it is given."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from jax import Array
from jaxtyping import Key, PyTree

from otrw_jax.methods.base import Examples, Method, TrainingData

MetaAugmentation = Literal["never", "epoch", "step"]

Prepare = Callable[[Key[Array, "b"], PyTree], PyTree]
"""`(keys [b], stored inputs [b ...]) -> inputs [b ...]`, with augmentation by a key an example."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a recipe.

    Attributes:
        name: such as `"stage1"`; checkpoints and records carry it.
        method: how it trains.
        epochs: passes over the training set.
        batch_size: examples a step, over all devices (of each distribution, where a method draws
            by several). What is left over at the end of an epoch's random order is not used in
            that epoch.
        feature_copies: of each example's features of the frozen backbone, that stand in place of
            the inputs (`otrw_jax.training.features`); 0 where it trains on inputs.
        augment_meta: how often the meta set goes through the augmentation of the training examples
            anew: never, so that it stays as it is, at each epoch, or at each step.

    Raises:
        ValueError: another `augment_meta`.
    """

    name: str
    method: Method
    epochs: int
    batch_size: int
    feature_copies: int = 0
    augment_meta: MetaAugmentation = "never"

    def __post_init__(self):
        if self.augment_meta not in get_args(MetaAugmentation):
            raise ValueError(
                f"augment_meta is {self.augment_meta!r}; choose "
                f"{', '.join(get_args(MetaAugmentation))}."
            )


class DeviceData(NamedTuple):
    """A data set that stays on the device.

    Attributes:
        raw: the stored training examples, N of them, of which batches are taken.
        view: what the method sees beside the batches, prepared without augmentation.
        raw_meta: the meta set as it is stored, for stages that augment it; None elsewhere.
    """

    raw: Examples
    view: TrainingData
    raw_meta: Examples | None = None


def check_batch(stage: Stage, count: int) -> None:
    """Raises a ValueError where a training set of so many examples is smaller than a batch."""
    if count < stage.batch_size:
        raise ValueError(
            f"{stage.name}: the batch size is {stage.batch_size} and the training set has {count} "
            "examples; take a smaller batch."
        )
