"""What of a config is compiled: the network, its stages, their loops and their evaluations."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PyTree
from ml_collections import ConfigDict

from experiments.configs.checks.relations import of_features
from experiments.configs.kinds import is_streamed
from experiments.program.layout import steps_per_call
from experiments.program.networks import make_model, with_weights
from experiments.program.prepared import RECENT, Prepared
from experiments.recipes import RECIPES, make_stages
from otrw_jax.data.images import Preprocessing
from otrw_jax.models.model import Model, predict
from otrw_jax.models.unprepared import preparing
from otrw_jax.training.devices import pick_devices
from otrw_jax.training.evaluation import make_evaluator
from otrw_jax.training.features import (
    data_seen,
    given_features,
    make_keeper,
    make_reader,
    pick_copy,
)
from otrw_jax.training.loop import Loop, make_loop
from otrw_jax.training.stages import DeviceData, Stage, check_batch
from otrw_jax.training.streaming import StreamedData, make_streaming_loop


class Program:
    """A config's network and stages for class counts and inputs. It holds no data of any seed.

    What is compiled is compiled once, and kept by all that it depends on.

    Attributes:
        config: with the recipe's own fields alone.
        num_classes: K.
        streamed: whether training inputs stay on the disk.
        preprocessing: from stored to network inputs.
        devices: those that share a batch.
        model: the network.
        stages: of the recipe.
        ends: number of the last epoch of each stage, counted over all stages.
        read: `(variables, stored examples) -> examples`, their features in evaluation mode.
        loops: `(seeds) -> [Loop]`, the stages compiled, for so many seeds trained together; 0 for
            one, alone.
        evaluator: `(stage, kept, together) -> evaluate`, of a stage's network (`make_evaluator`):
            whether it is given features in place of inputs, and whether of several seeds at once.
    """

    def __init__(
        self,
        config: ConfigDict,
        counts: tuple[int, ...],
        shape: tuple[int, ...],
        dtype: str,
        preprocessing: Preprocessing,
    ):
        """Makes the network and the stages.

        Args:
            config: with the recipe's own fields alone.
            counts: training examples of each class.
            shape: of a stored input.
            dtype: of a stored input.
            preprocessing: from stored to network inputs.

        Raises:
            ValueError: as `make_stages`; (from `loops`) a batch does not split over the devices.
        """
        self.config, self.preprocessing = config, preprocessing
        self.streamed = is_streamed(config)
        self.devices = pick_devices(config.devices)
        self.num_classes, recipe = len(counts), RECIPES[config.recipe]
        model = make_model(
            config.model,
            self.num_classes,
            self.devices.axis_name,
            head=recipe.head,
            branches=recipe.branches,
        )
        # The meta set is on the device as it is stored.
        self.model = preparing(model) if self.streamed else model
        # Two inputs of nothing: parameters start from the key and the shapes alone.
        self._blank = preprocessing.evaluate(jnp.zeros((2, *shape), dtype))
        self._examples = sum(counts)
        self.stages = make_stages(
            config, self.model, np.array(counts), self.fresh_head, self.devices.axis_name
        )
        self.ends = tuple(int(end) for end in np.cumsum([stage.epochs for stage in self.stages]))
        # As many at a time as a step of training has of those on the disk, which are large.
        at_once = {"size": config.stage1.batch_size} if self.streamed else {}
        self.read = make_reader(self.model, preprocessing.evaluate, **at_once)
        self.loops = functools.cache(self._loops)
        self.evaluator = functools.cache(self._evaluator)
        self.predictor = functools.cache(self._predictor)
        self._keeper = functools.cache(
            lambda copies: make_keeper(self.model, preprocessing.train, copies)
        )

    def check(self, prepared: Prepared) -> None:
        """Says before any training what is wrong with a stage, not when its turn has come.

        Raises:
            ValueError: a batch is larger than the training set, or the stage's own `init` refuses
                the data or the network.
        """
        for index, stage in enumerate(self.stages):
            check_batch(stage, self._examples)
            self.template(index, prepared)
        self.loops(0)

    def initial_variables(self, seed: int) -> PyTree:
        """The network before training: at random, or with the weights that the config names."""
        variables = self.model.init(jax.random.key(seed), self._blank)
        return with_weights(self.config.model, variables, self.num_classes)

    def fresh_head(self, key: Array) -> PyTree:
        """Parameters of a new last layer."""
        return self.model.init(key, self._blank)["params"]["head"]

    def stage_key(self, seed: int, index: int) -> Array:
        """Base key of a stage's order, augmentation and draws."""
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), index)

    def template(self, index: int, prepared: Prepared) -> Any:
        """Shapes and types of the state of a stage, without computing any."""
        stage = self.stages[index]

        def state(key, variables):
            data = self.data_of(stage, 0, prepared, variables)
            return stage.method.init(key, variables, data.view)

        return jax.eval_shape(state, self.stage_key(0, index), self._shapes)

    @functools.cached_property
    def _shapes(self) -> PyTree:
        """Those of the network's variables, which take a while to find of a deep one."""
        return jax.eval_shape(self.model.init, jax.random.key(0), self._blank)

    def data_of(
        self, stage: Stage, seed: int, prepared: Prepared, variables: PyTree
    ) -> DeviceData | StreamedData:
        """The data that a stage trains on: inputs, or features kept of a frozen backbone.

        Its view has the training set's inputs where the stage's method reads them. Those that stay
        on the disk are what they are.
        """
        if isinstance(prepared.data, StreamedData):
            return prepared.data

        def evaluated(inputs: PyTree) -> PyTree:
            return self.devices.replicate(self.preprocessing.evaluate(inputs))

        key = jax.random.fold_in(jax.random.key(seed), 2)
        return data_seen(stage, prepared.data, variables, key, evaluated, self._keeper)

    def seen(self, stage: Stage, seed: int, prepared: Prepared, variables: PyTree) -> Prepared:
        """The data as a stage sees them: features kept of a frozen backbone are evaluated too.

        Recipes that train heads on one network see the same features, which are then not computed
        again.
        """
        if not stage.feature_copies:
            return prepared._replace(data=self.data_of(stage, seed, prepared, variables))

        given = prepared.data, prepared.test, prepared.held_out

        def compute():
            held_out = None if given[2] is None else self.read(variables, given[2])
            data = self.data_of(stage, seed, prepared, variables)
            return data, self.read(variables, prepared.test), held_out

        choices = stage.feature_copies, stage.augment_meta, stage.method.reads_inputs, seed
        sections = [self.config[part].to_dict() for part in ("data", "model")]
        network = variables["params"]["backbone"], variables["state"]
        depends = [*choices, self.devices.total, *sections]
        data, test, held_out = RECENT.get(depends, (network, given), compute)
        return prepared._replace(data=data, test=test, held_out=held_out, kept=True)

    def trained_model(self, stage: Stage) -> Model:
        """The network, with the last layer as a stage's method reads it."""
        return self.model._replace(logits=stage.method.logits or self.model.logits)

    def _loops(self, seeds: int) -> list[Loop]:
        prepare, devices = self.preprocessing.train, self.devices
        steps = steps_per_call(self.config)
        if self.streamed:
            return [
                make_streaming_loop(stage, prepare, steps_per_call=steps, devices=devices)
                for stage in self.stages
            ]
        return [
            make_loop(
                stage,
                pick_copy if stage.feature_copies else prepare,
                steps_per_call=steps,
                devices=devices,
                seeds=seeds,
            )
            for stage in self.stages
        ]

    def _evaluator(self, stage: Stage, kept: bool, together: bool):
        model = self.trained_model(stage)
        at_once = {"batch_size": stage.batch_size} if self.streamed else {}
        return make_evaluator(
            given_features(model) if kept else model,
            (lambda z: z) if kept else self.preprocessing.evaluate,
            self.num_classes,
            devices=None if together else self.devices,
            together=together,
            correct=stage.method.correct,
            **at_once,
        )

    def _predictor(self, stage: Stage):
        model = self.trained_model(stage)

        @jax.jit
        def of_stored(variables, inputs):
            return predict(model, variables, self.preprocessing.evaluate(inputs))

        return of_stored


def check_streamable(config: ConfigDict) -> None:
    """Refuses a recipe that needs all training images, where these stay on the disk.

    Args:
        config: with the recipe's own fields alone; its stages are made for a set of two classes.

    Raises:
        ValueError: a method of the recipe reads them all, or as `make_stages`.
    """
    recipe = RECIPES[config.recipe]
    model = make_model(config.model, 2, head=recipe.head, branches=recipe.branches)
    for stage in make_stages(config, model, np.full(2, 10**6), lambda key: None):
        if stage.method.reads_inputs:
            raise ValueError(
                f"{config.recipe}: its {stage.name} reads all training images at the start of an "
                "epoch, and those of this config stay on the disk; train it on features of them: "
                f"{of_features(config)}."
            )
