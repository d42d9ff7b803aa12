"""The network, the data and the stages of a call of `fit`, and what each stage computes."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array, Float, Key, PyTree

from otrw_jax.checks import check_number
from otrw_jax.methods.base import Batch, Examples, TrainingData
from otrw_jax.metrics import summarise
from otrw_jax.models.model import Model, predict
from otrw_jax.training.evaluation import make_evaluator
from otrw_jax.training.features import (
    data_seen,
    given_features,
    make_keeper,
    make_reader,
    pick_copy,
)
from otrw_jax.training.fitting.fitted import Fitted
from otrw_jax.training.fitting.given import Given
from otrw_jax.training.fitting.identity import of_arrays, of_program
from otrw_jax.training.stages import DeviceData, Prepare, Stage, check_batch


def as_they_are(inputs: PyTree) -> PyTree:
    """The stored inputs, where the network takes them so."""
    return inputs


def check_stages(stages: tuple[Stage, ...], count: int) -> None:
    """Raises a ValueError where stages cannot be run on so many examples, or share a name."""
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"fit: the stages are named {', '.join(names)}; give each its own name.")
    for stage in stages:
        check_number(f"fit: {stage.name}", "epochs", stage.epochs, least=1, whole=True)
        check_number(f"fit: {stage.name}", "batch_size", stage.batch_size, least=1, whole=True)
        check_batch(stage, count)


class Work:
    """The network, the data on the device, and the stages; holds nothing that changes."""

    def __init__(
        self,
        model: Model,
        given: Given,
        stages: tuple[Stage, ...],
        prepare: Callable[[PyTree], PyTree],
        augment: Prepare,
        seed: int,
        num_classes: int,
    ):
        """Puts together what `fit` is given.

        Raises:
            ValueError: stages that cannot be run.
        """
        check_stages(stages, len(given.train.labels))
        self.model, self.given, self.stages = model, given, stages
        self.prepare, self.augment, self._seed = prepare, augment, seed
        self.num_classes = num_classes
        self.ends = tuple(int(end) for end in np.cumsum([stage.epochs for stage in stages]))
        meta = given.meta and given.meta._replace(inputs=prepare(given.meta.inputs))
        view = TrainingData(Examples(None, given.train.labels), meta, num_classes)
        self._data = DeviceData(given.train, view, given.meta)
        self._read = make_reader(model, prepare)
        self._keeper = functools.cache(lambda copies: make_keeper(model, augment, copies))

    def initial(self) -> PyTree:
        """The network before training."""
        inputs = self.given.train.inputs
        blank = self.prepare(jnp.zeros((2, *inputs.shape[1:]), inputs.dtype))
        return self.model.init(jax.random.key(self._seed), blank)

    def key(self, index: int) -> Key[Array, ""]:
        """Of a stage's order, augmentation and draws."""
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(self._seed), 1), index)

    def data_of(self, stage: Stage, variables: PyTree) -> DeviceData:
        """What a stage trains on."""
        key = jax.random.fold_in(jax.random.key(self._seed), 2)
        return data_seen(stage, self._data, variables, key, self.prepare, self._keeper)

    def prepare_of(self, stage: Stage) -> Prepare:
        """From what a stage trains on to what its network is given."""
        return pick_copy if stage.feature_copies else self.augment

    def trace(self, index: int) -> tuple[ClosedJaxpr, Any]:
        """What a stage computes, and the shapes of its state; its method refuses what it must."""
        stage = self.stages[index]
        method, size = stage.method, stage.batch_size

        def begin_and_step(key):
            variables = self.initial()
            data = self.data_of(stage, variables)
            state = method.init(key, variables, data.view)
            refreshed = method.refresh(state, data.view) if method.refresh else state
            drawn = method.sampling(refreshed, data.raw.labels) if method.sampling else None
            taken = size * (drawn.shape[0] if drawn is not None and drawn.ndim == 2 else 1)
            ids = jnp.arange(taken) % data.raw.labels.shape[0]
            inputs = self.prepare_of(stage)(jax.random.split(key, taken), data.raw.inputs[ids])
            batch = Batch(inputs, data.raw.labels[ids], ids)
            return state, drawn, method.step(refreshed, batch, data.view.meta)

        traced, (template, *_) = jax.make_jaxpr(begin_and_step, return_shape=True)(self.key(index))
        return traced, template

    def call(self, programs: Sequence[ClosedJaxpr], numbers: dict[str, int]) -> dict[str, Any]:
        """What is trained, in hashes: by it a directory is known."""
        given = self.given
        arrays = {"train": given.train, "meta": given.meta, "rows": given.rows, **given.parts}
        said: dict[str, Any] = {"seed": self._seed, **numbers}
        said |= {f"arrays of {name}": of_arrays(tree) for name, tree in arrays.items()}
        for stage, program in zip(self.stages, programs, strict=True):
            fields = ("epochs", "batch_size", "feature_copies", "augment_meta")
            said |= {f"{stage.name}.{field}": getattr(stage, field) for field in fields}
            said[f"{stage.name}.program"] = of_program(program)
        return said | {"stages": ", ".join(stage.name for stage in self.stages)}

    def judge(self, stage: Stage, variables: PyTree) -> Callable[[PyTree], dict]:
        """From the network's variables to metrics by part, with features where these are kept."""
        kept, method = bool(stage.feature_copies), stage.method
        model = self.model._replace(logits=method.logits or self.model.logits)
        evaluate = make_evaluator(
            given_features(model) if kept else model,
            as_they_are if kept else self.prepare,
            self.num_classes,
            correct=method.correct,
        )
        parts = self.given.parts
        if kept:
            parts = {name: self._read(variables, part) for name, part in parts.items()}

        def metrics_of(variables):
            found = {name: evaluate(variables, part) for name, part in parts.items()}
            each = {name: summarise(*sums, self.given.counts) for name, sums in found.items()}
            return {n: {k: x for k, x in m.items() if not math.isnan(x)} for n, m in each.items()}

        return metrics_of

    def fitted(self, number: int, state: Any, history: list[dict]) -> Fitted:
        """What is returned, of a state of the last stage."""
        method, given = self.stages[-1].method, self.given
        model = self.model._replace(logits=method.logits or self.model.logits)
        return Fitted(
            state.variables,
            self._weights(state),
            np.setdiff1d(np.arange(given.total), given.rows),
            number,
            history,
            jax.jit(lambda variables, inputs: predict(model, variables, self.prepare(inputs))),
            given.train.inputs.shape[1:],
            method.correct,
        )

    def _weights(self, state: Any) -> Float[np.ndarray, "N"] | None:
        stage = self.stages[-1]
        if stage.method.weights is None:
            return None

        def read(variables):
            return self._read(variables, self.given.train)

        weights = np.zeros(self.given.total, np.float32)
        weights[self.given.rows] = stage.method.weights(state, read, stage.batch_size)
        return weights
