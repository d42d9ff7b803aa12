"""What a recipe is: stages made of a config, a network and the class counts."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from jax import Array
from jaxtyping import PyTree
from ml_collections import ConfigDict

from experiments.recipes.optimizers import learning_rate, make_optimizer
from otrw_jax import cross_entropy, erm
from otrw_jax.losses import PerExampleLoss, label_aware_smoothing, smoothed
from otrw_jax.methods.base import Method
from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.methods.wrappers.averaging import averaged
from otrw_jax.models.model import Model
from otrw_jax.training.features import given_features, on_frozen_backbone
from otrw_jax.training.stages import MetaAugmentation, Stage

GOES_WITH = {
    "mixup": "stages of empirical risk minimisation",
    "sam": "stages of empirical risk minimisation",
    "smoothing": "stages whose loss takes smooth labels",
}
"""The levers that not every stage has, and what they go with."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A way from a config to a trained network.

    Attributes:
        about: what it is, in a few words.
        stages: makes the stages.
        options: its own fields and their defaults, `config.options.NAME`.
        second: None for one stage; otherwise what its section `config.stage2.NAME` has different
            from the config's second stage of a head.
        preset: of a second stage of OT re-weighting, the choices that its section begins with, from
            the number of classes.
        trains_first: what is trained in the first stage; recipes that agree in it can take over
            each other's. None where no other recipe trains the same.
        head: the network's last layer, from the number of classes; None for the one that the
            config's network has.
        branches: branches of the backbone's last block.
    """

    about: str
    stages: Callable[["Context"], list[Stage]]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    second: Mapping[str, Any] | None = None
    preset: Callable[[int], OTReweighting] | None = None
    trains_first: str | None = None
    head: Callable[[int], nn.Module] | None = None
    branches: int = 1


@dataclasses.dataclass(frozen=True)
class Context:
    """What a recipe makes its stages of.

    Attributes:
        recipe: whose stages are made.
        config: the whole config.
        options: the recipe's own fields.
        second: the section of its second stage, or None.
        model: the network.
        counts: training examples of each class, `[K]`.
        fresh_head: from a key to the parameters of a new last layer.
        axis_name: mapped axis over which batches are spread.
    """

    recipe: Recipe
    config: ConfigDict
    options: ConfigDict
    second: Any
    model: Model
    counts: np.ndarray
    fresh_head: Callable[[Array], PyTree]
    axis_name: str | None
    _used: set[tuple[str, str]] = dataclasses.field(default_factory=set)

    @property
    def first(self) -> ConfigDict:
        """The section of the first stage."""
        return self.config.stage1

    @property
    def trained(self) -> ConfigDict:
        """What of the second stage's section says which parameters it trains, and how."""
        return self.second.choices if self.recipe.preset else self.second

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.counts)

    def steps(self, section: ConfigDict) -> int:
        """Steps of an epoch."""
        return int(self.counts.sum()) // section.batch_size

    def step_at(self, section: ConfigDict, share: float) -> int:
        """The first step of the epoch that begins after a share of a stage's epochs."""
        return round(share * section.epochs) * self.steps(section)

    def total_steps(self, section: ConfigDict) -> int:
        """Steps of a whole stage."""
        return section.epochs * self.steps(section)

    def learning_rate(self, section: ConfigDict):
        """The learning rate of a stage, by the step where it changes."""
        return learning_rate(section.optimizer, self.steps(section), section.epochs)

    def optimizer(self, config: ConfigDict, section: ConfigDict, sam: float = 0.0, rate_drop=None):
        """An optimiser of the config that counts in the epochs of a stage; see `make_optimizer`."""
        return make_optimizer(config, self.steps(section), section.epochs, sam, rate_drop)

    def smoothed(self, section: ConfigDict, loss: PerExampleLoss) -> PerExampleLoss:
        """The loss, with the labels as smooth as the stage's levers say."""
        levers = section.levers
        self._used.add((self._name(section), "smoothing"))
        if not levers.smoothing:
            return loss
        if levers.smoothing_tail is None:
            return smoothed(loss, levers.smoothing)
        both = levers.smoothing, levers.smoothing_tail
        return smoothed(loss, label_aware_smoothing(self.counts, *both))

    def erm_stage(
        self,
        section: ConfigDict | None = None,
        wrap: Callable[[Method], Method] = lambda method: method,
        **options,
    ) -> Stage:
        """A stage of empirical risk minimisation, with all levers.

        Args:
            section: of the config; the first stage's by default.
            wrap: what is made of the method, such as `sampled`.
            options: of `Context.erm`.
        """
        section = self.first if section is None else section
        return self.stage_of(section, wrap(self.erm(section, **options)))

    def erm(
        self,
        section: ConfigDict,
        model: Model | None = None,
        loss: PerExampleLoss = cross_entropy,
        rate_drop: tuple[int, float] | None = None,
        **options,
    ) -> Method:
        """Empirical risk minimisation, as a section of the config has it.

        Args:
            section: of the config.
            model: in place of the one that the section asks for.
            loss: per example.
            rate_drop: a step and what the learning rate is multiplied by from there on.
            options: of `erm`.
        """
        levers, is_first = section.levers, section is self.first
        self._used.update((self._name(section), lever) for lever in ("mixup", "sam"))
        if not is_first:
            options = {"trainable": section.trainable, "batch_norm": section.batch_norm} | options
        return erm(
            model or (self.model if is_first else self.second_model()),
            self.optimizer(section.optimizer, section, levers.sam, rate_drop),
            loss=self.smoothed(section, loss),
            mixup=levers.mixup,
            axis_name=self.axis_name,
            **options,
        )

    def stage(
        self,
        make: Callable[..., Method],
        section: ConfigDict | None = None,
        augment_meta: MetaAugmentation = "never",
    ) -> Stage:
        """A stage of another method, with the levers that go with any: smoothing and averaging.

        Args:
            make: `(model, optimizer, axis_name=...) -> Method`; it smooths its loss itself.
            section: of the config; the first stage's by default.
            augment_meta: as of `Stage`.

        Raises:
            ValueError: levers that this method does not have.
        """
        section = self.first if section is None else section
        model = self.model if section is self.first else self.second_model()
        optimizer = self.optimizer(section.optimizer, section)
        method = make(model, optimizer, axis_name=self.axis_name)
        return self.stage_of(section, method, augment_meta)

    def second_model(self) -> Model:
        """The network of the second stage, given kept features where the section has copies.

        Raises:
            ValueError: features are to be kept that are not those in evaluation mode.
        """
        if not self.second.feature_copies:
            return self.model
        passes = self.trained.batch_norm
        if self.recipe.preset:
            choices = self.second.choices
            passes |= choices.meta_batch_norm or choices.measure == "prototype_input"
        if passes:
            raise ValueError(
                "feature_copies keeps the features of a frozen backbone in evaluation mode: set "
                "batch_norm=False and a measure of features, or feature_copies=0."
            )
        return given_features(self.model)

    def stage_of(
        self, section: ConfigDict, method: Method, augment_meta: MetaAugmentation = "never"
    ) -> Stage:
        """The stage of a method by a section of the config.

        Raises:
            ValueError: levers are on that the method was made without.
        """
        name = self._name(section)
        for lever in GOES_WITH:
            if section.levers[lever] and (name, lever) not in self._used:
                raise ValueError(
                    f"{name}.levers.{lever} goes with {GOES_WITH[lever]}; this stage of "
                    f"{self.config.recipe} is none: set it to 0."
                )
        if section.levers.ema:
            method = averaged(method, section.levers.ema)
        is_first = section is self.first
        copies = 0 if is_first else section.feature_copies
        if copies:
            method = on_frozen_backbone(method, self.trained.trainable)
        name = "stage1" if is_first else "stage2"
        return Stage(name, method, section.epochs, section.batch_size, copies, augment_meta)

    def _name(self, section: ConfigDict) -> str:
        return "stage1" if section is self.first else f"stage2.{self.config.recipe}"
