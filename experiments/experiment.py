"""A config made ready to run: data set, network, compiled stages."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.recipes import make_model, make_stages, recipe_name
from otrw_jax.data.augment import preprocessing
from otrw_jax.data.sources import load_dataset
from otrw_jax.data.splits import Split, make_split
from otrw_jax.evaluation import make_evaluator
from otrw_jax.methods.base import Examples, TrainingData
from otrw_jax.metrics import summarise
from otrw_jax.train import DeviceData, Stage, make_epoch


class Prepared(NamedTuple):
    """The data of one seed: the split, the training data, and what is evaluated."""

    split: Split
    data: DeviceData
    test: Examples
    held_out: Examples | None


class Experiment:
    """A config made ready: data set, network, stages. Serves several seeds, compiling once."""

    def __init__(self, config: ConfigDict):
        self.config = ConfigDict(config)
        self.config.recipe = recipe_name(config.recipe)
        # The other recipes' second stages are no part of this run.
        self.config.stage2 = ConfigDict(
            {name: stage for name, stage in config.stage2.items() if name == self.config.recipe}
        )
        data = self.config.data
        self.dataset = load_dataset(data.name, data.data_dir or None)
        self.preprocessing = preprocessing(data.name, data.augment, data.padding)
        self.model = make_model(self.config.model, self.dataset.num_classes)
        self.evaluate = make_evaluator(
            self.model, self.preprocessing.evaluate, self.dataset.num_classes
        )
        self._stages = None

    def prepare(self, subset_seed: int) -> Prepared:
        """Draws the subset and puts the data on the device."""
        config, dataset = self.config.data, self.dataset
        split = make_split(
            dataset.train_labels,
            imbalance_factor=config.imbalance_factor,
            seed=subset_seed,
            meta_per_class=config.meta_per_class,
            held_out_per_class=config.held_out_per_class,
            profile=config.profile,
        )

        def stored(ids):
            return Examples(
                jnp.asarray(dataset.train_inputs[ids]), jnp.asarray(dataset.train_labels[ids])
            )

        def viewed(examples):
            return examples._replace(inputs=self.preprocessing.evaluate(examples.inputs))

        train = stored(split.train)
        meta = viewed(stored(split.meta)) if split.meta.size else None
        view = TrainingData(viewed(train), meta, dataset.num_classes)
        return Prepared(
            split,
            DeviceData(train, self.preprocessing.train, view),
            Examples(jnp.asarray(dataset.test_inputs), jnp.asarray(dataset.test_labels)),
            stored(split.held_out) if split.held_out.size else None,
        )

    def stages(self, counts: np.ndarray) -> list[tuple[Stage, Any]]:
        """The stages with their compiled epochs; the same for every seed."""
        if self._stages is None:
            steps = self.config.steps_per_call
            if steps < 0:  # XLA's convolutions are slow inside a loop on CPUs.
                convolutions = self.config.model.name != "mlp"
                steps = 1 if convolutions and jax.default_backend() == "cpu" else 0
            self._stages = [
                (stage, make_epoch(stage, self.preprocessing.train, steps))
                for stage in make_stages(self.config, self.model, counts)
            ]
        return self._stages

    def initial_variables(self, seed: int, prepared: Prepared):
        """The network before training."""
        return self.model.init(jax.random.key(seed), prepared.data.view.train.inputs[:2])

    def stage_key(self, seed: int, index: int):
        """Base key of a stage's order, augmentation and draws."""
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), index)

    def evaluations(self, variables, prepared: Prepared) -> dict[str, dict[str, float]]:
        """All metrics on the test set and, where there is one, the held-out part; in percent."""
        shots = self.config.shots
        parts = {"test": prepared.test, "held_out": prepared.held_out}
        return {
            name: summarise(
                *self.evaluate(variables, examples), prepared.split.counts, shots.many, shots.few
            )
            for name, examples in parts.items()
            if examples is not None
        }


def stage_ends(stages) -> tuple[int, ...]:
    """Number of the last epoch of each stage, counted over all stages."""
    return tuple(int(end) for end in np.cumsum([stage.epochs for stage, _ in stages]))
