"""A config made ready to run: data set, network, compiled stages."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.checks import check_config, expand_paths
from experiments.data import Source, make_preprocessing
from experiments.networks import make_model
from experiments.recipes import RECIPES, make_stages, recipe_name
from otrw_jax.data.sources import Dataset
from otrw_jax.data.splits import Split
from otrw_jax.devices import first_alone, is_first_process, pick_devices
from otrw_jax.evaluation import Statistics, make_evaluator
from otrw_jax.features import given_features, make_keeper, make_reader, pick_copy
from otrw_jax.methods.base import Examples, TrainingData
from otrw_jax.metrics import summarise
from otrw_jax.model import Model
from otrw_jax.seeds import stack
from otrw_jax.train import DeviceData, Loop, Stage, check_batch, make_loop


class Prepared(NamedTuple):
    """The data of one seed.

    Attributes:
        split: its parts, as indices.
        dataset: the whole, as networks see it.
        data: what is trained on.
        test: what is evaluated: as stored, `Experiment.preprocessing.evaluate` makes inputs of it.
        held_out: what checkpoints are chosen by, or None.
        kept: whether the last three hold features of a frozen backbone in place of inputs.
    """

    split: Split
    dataset: Dataset
    data: DeviceData
    test: Examples
    held_out: Examples | None
    kept: bool = False


class Experiment:
    """A config made ready: data set, network, stages. Serves several seeds, compiling once.

    Attributes:
        config: with the recipe's own fields alone.
        source: of the data set and its splits.
        dataset: as it is stored.
        preprocessing: from stored to network inputs.
        devices: those that share a batch.
        model: the network.
        read: `(variables, stored examples) -> examples`, their features in evaluation mode.
    """

    def __init__(self, config: ConfigDict, new: bool = True):
        """Checks the config, and loads the data set.

        Args:
            config: as a config file gives it.
            new: False for one that a run has been trained with, which is taken as it is.

        Raises:
            ValueError: a field is out of its range, or fields do not go together
                (`experiments.checks`); nothing has been loaded.
        """
        if new:
            check_config(config)
        self.config = ConfigDict(config)
        self.config.recipe = recipe_name(config.recipe)
        expand_paths(self.config)
        # The other recipes' fields are no part of this run.
        for part in ("stage2", "options"):
            own = {k: v for k, v in config[part].items() if k == self.config.recipe}
            self.config[part] = ConfigDict(own)
        if is_first_process():
            print(f"{self.config.data.name}: reading the data", flush=True)
        self.source = first_alone(lambda: Source(self.config))
        self.dataset = self.source.dataset
        self.preprocessing = make_preprocessing(self.config)
        self.devices = pick_devices(self.config.devices)
        num_classes = self.dataset.num_classes
        recipe = RECIPES[self.config.recipe]
        self.model = make_model(
            self.config.model,
            num_classes,
            self.devices.axis_name,
            head=recipe.head,
            branches=recipe.branches,
        )
        self.read = make_reader(self.model, self.preprocessing.evaluate)
        self._loops, self._keepers, self._evaluators = {}, {}, {}
        self._begun = set()
        self._few = None

    def prepare(self, subset_seed: int) -> Prepared:
        """Draws the subset and puts the data on the device."""
        split = self.source.split(subset_seed)
        dataset = first_alone(lambda: self.source.seen(split, subset_seed))

        def stored(ids):
            return Examples(
                jnp.asarray(dataset.train_inputs[ids]), jnp.asarray(dataset.train_labels[ids])
            )

        def viewed(examples):
            return examples._replace(inputs=self.preprocessing.evaluate(examples.inputs))

        train = stored(split.train)
        raw_meta = stored(split.meta) if split.meta.size else None
        meta = None if raw_meta is None else viewed(raw_meta)
        view = TrainingData(viewed(train), meta, dataset.num_classes)
        test = Examples(jnp.asarray(dataset.test_inputs), jnp.asarray(dataset.test_labels))
        held_out = stored(split.held_out) if split.held_out.size else None
        arrays = self.devices.replicate((DeviceData(train, view, raw_meta), test, held_out))
        self._few = train.inputs[:2]
        return Prepared(split, dataset, *arrays)

    @property
    def in_a_loop(self) -> bool:
        """Whether many steps go into one call: not for convolutions on CPUs, slow in loops."""
        return self.config.model.name == "mlp" or jax.default_backend() != "cpu"

    def seeds_at_once(self, count: int) -> int:
        """How many of so many seeds are trained together."""
        if self.devices.total > 1:
            return 1
        if self.config.seeds_at_once < 0:
            return count if self.in_a_loop else 1
        return self.config.seeds_at_once or count

    def loops(self, counts: np.ndarray, seeds: int = 0) -> list[Loop]:
        """The stages, compiled; the same for every seed.

        Args:
            counts: training examples of each class, `[K]`.
            seeds: number of seeds trained together; 0 for one, alone.
        """
        if seeds not in self._loops:
            steps = self.config.steps_per_call
            if steps < 0:
                steps = 0 if self.in_a_loop else 1
            stages = make_stages(
                self.config, self.model, counts, self.fresh_head, self.devices.axis_name
            )
            self._loops[seeds] = [
                make_loop(
                    stage,
                    pick_copy if stage.feature_copies else self.preprocessing.train,
                    steps_per_call=steps,
                    devices=self.devices,
                    seeds=seeds,
                )
                for stage in stages
            ]
        return self._loops[seeds]

    def first_time(self, stage: Stage, seeds: int = 0) -> bool:
        """Whether a stage is begun for the first time, so that its programs are yet to compile."""
        name = stage.name, seeds
        if name in self._begun:
            return False
        self._begun.add(name)
        return True

    def check_stages(self, seed: int, prepared: Prepared) -> None:
        """Says before any training what is wrong with a stage, not when its turn has come.

        Raises:
            ValueError: a batch is larger than the training set, or the stage's own `init` refuses
                the data or the network.
        """
        count = int(prepared.split.counts.sum())
        for index, loop in enumerate(self.loops(prepared.split.counts)):
            check_batch(loop.stage, count)
            self.template(index, seed, prepared)

    def stage_data(self, stage: Stage, seed: int, prepared: Prepared, variables) -> DeviceData:
        """The data that a stage trains on: inputs, or features kept of a frozen backbone."""
        copies = stage.feature_copies
        if not copies:
            return prepared.data
        if copies not in self._keepers:
            self._keepers[copies] = make_keeper(self.model, self.preprocessing.train, copies)
        key = jax.random.fold_in(jax.random.key(seed), 2)
        data = prepared.data
        if stage.augment_meta == "never":
            data = data._replace(raw_meta=None)
        return self._keepers[copies](variables, data, key)

    def for_stage(self, stage: Stage, seed: int, prepared: Prepared, variables) -> Prepared:
        """The data as a stage sees it: features kept of a frozen backbone are evaluated too."""
        if not stage.feature_copies:
            return prepared
        held_out = prepared.held_out
        return prepared._replace(
            data=self.stage_data(stage, seed, prepared, variables),
            test=self.read(variables, prepared.test),
            held_out=None if held_out is None else self.read(variables, held_out),
            kept=True,
        )

    def template(self, index: int, seed: int, prepared: Prepared):
        """Shapes and types of the state of a stage, without computing any."""
        stage = self.loops(prepared.split.counts)[index].stage

        def state(key):
            variables = self.initial_variables(seed, prepared)
            data = self.stage_data(stage, seed, prepared, variables)
            return stage.method.init(key, variables, data.view)

        return jax.eval_shape(state, self.stage_key(seed, index))

    def initial_variables(self, seed: int, prepared: Prepared):
        """The network before training."""
        return self.model.init(jax.random.key(seed), prepared.data.view.train.inputs[:2])

    def fresh_head(self, key):
        """Parameters of a new last layer."""
        return self.model.init(key, self.preprocessing.evaluate(self._few))["params"]["head"]

    def stage_key(self, seed: int, index: int):
        """Base key of a stage's order, augmentation and draws."""
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), index)

    def trained_model(self, stage: Stage) -> Model:
        """The network, with the last layer as a stage's method reads it."""
        return self.model._replace(logits=stage.method.logits or self.model.logits)

    def evaluator(self, stage: Stage, kept: bool = False, together: bool = False):
        """The evaluation of a stage's network; of several seeds' together (`make_evaluator`).

        Args:
            stage: whose method reads the head.
            kept: whether it is given features in place of inputs.
            together: whether of several seeds in one program.
        """
        name = stage.name, kept, together
        if name not in self._evaluators:
            model = self.trained_model(stage)
            self._evaluators[name] = make_evaluator(
                given_features(model) if kept else model,
                (lambda z: z) if kept else self.preprocessing.evaluate,
                self.dataset.num_classes,
                devices=None if together else self.devices,
                together=together,
                correct=stage.method.correct,
            )
        return self._evaluators[name]

    def evaluations(
        self, stage: Stage, variables, prepared: Prepared
    ) -> dict[str, dict[str, float]]:
        """All metrics on the test set and, where there is one, the held-out part; in percent.

        A shot group that no class belongs to has no entry.

        Args:
            stage: that the network is of.
            variables: the network's.
            prepared: the data, as they are or `for_stage`.
        """
        found = self.statistics(stage, variables, prepared)
        return {name: self.summary(part, prepared) for name, part in found.items()}

    def statistics(self, stage: Stage, variables, prepared: Prepared) -> dict[str, Statistics]:
        """What `evaluations` sums up, on the test set and the held-out part; by the same names."""
        parts = {"test": prepared.test, "held_out": prepared.held_out}
        evaluate = self.evaluator(stage, prepared.kept)
        return {
            name: evaluate(variables, examples)
            for name, examples in parts.items()
            if examples is not None
        }

    def evaluations_together(
        self, stage: Stage, variables: list, prepared: list[Prepared]
    ) -> list[dict]:
        """The evaluations of several seeds, in one program."""
        stacked, first = stack(variables), prepared[0]
        evaluate = self.evaluator(stage, first.kept, together=True)
        shared = not first.kept and all(one.dataset is first.dataset for one in prepared)
        test = first.test if shared else stack([one.test for one in prepared])
        found = {"test": evaluate(stacked, test)}
        if first.held_out is not None:
            held_out = stack([one.held_out for one in prepared])
            found["held_out"] = evaluate(stacked, held_out)
        return [
            {
                name: self.summary(jax.tree.map(lambda x, at=at: x[at], statistics), one)
                for name, statistics in found.items()
            }
            for at, one in enumerate(prepared)
        ]

    def summary(self, statistics: Statistics, prepared: Prepared) -> dict[str, float]:
        """The metrics of statistics, in percent; without those of a shot group without classes."""
        shots = self.config.shots
        found = summarise(*statistics, prepared.split.counts, shots.many, shots.few)
        groups = tuple(f"{group}_accuracy" for group in ("many", "medium", "few"))
        return {k: v for k, v in found.items() if k not in groups or not math.isnan(v)}


def stage_ends(loops: list[Loop]) -> tuple[int, ...]:
    """Number of the last epoch of each stage, counted over all stages."""
    return tuple(int(end) for end in np.cumsum([loop.stage.epochs for loop in loops]))
