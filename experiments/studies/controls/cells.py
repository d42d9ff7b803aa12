"""The cells of the table of controls: ways to train a head on kept features, in few programs.

Cells that differ in numbers alone (class weights, an offset of the logits, the head they start
from) are trained in one program, stacked along the axis of the seeds.
"""

import dataclasses
from collections.abc import Container, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PyTree
from ml_collections import ConfigDict

from experiments.configs.checks.relations import check_controls
from experiments.program.compiled import Program
from experiments.program.prepared import Prepared
from experiments.recipes.optimizers import make_optimizer
from experiments.recipes.transport import reweighting_of
from experiments.studies.controls.grid import BASES, META_USES, TRANSPORTS
from experiments.studies.controls.stacked import Start, with_numbers
from otrw_jax import erm, ot_reweight
from otrw_jax.losses import effective_number_weights, log_prior
from otrw_jax.methods.base import Examples, Method
from otrw_jax.metrics import balanced_accuracy, top1_error
from otrw_jax.samplers import class_power, sampled
from otrw_jax.training.evaluation import make_evaluator
from otrw_jax.training.features import given_features, make_keeper, pick_copy
from otrw_jax.training.loop import make_loop, run_stage
from otrw_jax.training.seeds import stack
from otrw_jax.training.stages import DeviceData, Stage

BETA = 0.9999
FOLLOWED = (
    "stage2.cb",
    *(
        f"stage2.otrw_{name}.{section}"
        for name in TRANSPORTS
        if name != "none"
        for section in ("choices", "weight_optimizer")
    ),
)
"""Sections of the config's second stages: of every head, and of the OT steps."""


class ControlCells:
    """All cells of one config and its seeds."""

    def __init__(
        self,
        config: ConfigDict,
        program: Program,
        seeds: list[int],
        firsts: list[tuple[Prepared, PyTree]],
    ):
        """Keeps the features of every seed.

        Args:
            config: with the sections of all recipes; the head's stage is that of `cb`.
            program: of cross-entropy.
            seeds: as in the config.
            firsts: data, and variables after the first stage, of each seed.

        Raises:
            ValueError: there is no meta set, or a lever is on that cells do without.
        """
        check_controls(config)
        head, stages = config.stage2.cb, config.stage2
        self.config = ConfigDict({"data": config.data, "model": config.model})
        self.config.stage1, self.config.head = config.stage1, head
        if "encoder" in config:
            self.config.encoder = config.encoder
        self.config.ot = ConfigDict(
            {
                name: {
                    "weight_optimizer": stages[f"otrw_{name}"].weight_optimizer,
                    "choices": {**stages[f"otrw_{name}"].choices.to_dict(), **_on_features(name)},
                }
                for name in TRANSPORTS
                if name != "none"
            }
        )
        self._program, self._seeds = program, seeds
        self._evaluators: dict = {}
        self._model = given_features(program.model)
        self._k = program.num_classes
        self._variables = [variables for _, variables in firsts]
        keep = make_keeper(program.model, program.preprocessing.train, head.feature_copies)
        kept = [self._keep(keep, seed, *first) for seed, first in zip(seeds, firsts, strict=True)]
        self._merged = [merged for merged, _ in kept]
        self._sizes = [len(prepared.split.train) for prepared, _ in firsts]
        self.held_out = "held_out" in kept[0][1]
        self._evaluated = {name: stack([parts[name] for _, parts in kept]) for name in kept[0][1]}
        self.count = len(BASES) * len(META_USES) * len(TRANSPORTS)

    def run(self, done: Container[str] = ()) -> Iterator[tuple[str, dict]]:
        """Trains and evaluates all cells.

        Args:
            done: groups to leave out.

        Yields:
            A group `meta/ot`, a use of the meta set and an OT step, and for each of its cells
            `base/meta/ot` the test errors in percent, a list over the seeds: `last`,
            `best_held_out`, `best_test`; and `held_out_error`.
        """
        for meta in META_USES:
            for ot in TRANSPORTS:
                if f"{meta}/{ot}" not in done:
                    found = self._run(meta, ot, ("ce", "cb", "bs"), balanced=False)
                    found |= self._run(meta, ot, ("crt",), balanced=True)
                    yield f"{meta}/{ot}", found

    def _run(self, meta: str, ot: str, bases: tuple[str, ...], balanced: bool) -> dict:
        labels = self._merged[0].raw.labels[: self._count(meta, 0)]
        counts = np.bincount(labels, minlength=self._k)
        steps = int(counts.sum()) // self.config.head.batch_size
        method = with_numbers(lambda loss: self._method(ot, 10.0 * (meta == "ten"), loss, steps))
        data = self._data(meta, method.reads_inputs)
        if balanced:
            method = sampled(method, class_power(self._k, 0.0))
        head = self.config.head
        stage = Stage("head", method, head.epochs, head.batch_size, head.feature_copies)
        starts = [self._start(base, counts, at) for base in bases for at in range(len(data))]
        stacked = stack(data * len(bases))
        del data  # They are large.
        keys = jnp.stack([jax.random.fold_in(jax.random.key(s), 3) for s in self._seeds])
        keys = jnp.tile(keys, len(bases))
        loop = make_loop(stage, pick_copy, seeds=len(starts))
        state = loop.start(keys, stack(starts), stacked)
        errors = []
        for _, end, _ in run_stage(loop, state, stacked, keys):
            errors.append(self._errors(end.variables, bases, counts))
        return {
            f"{base}/{meta}/{ot}": selected_errors([e[base] for e in errors]) for base in errors[0]
        }

    def _count(self, meta: str, at: int) -> int:
        """Training examples of a seed, the meta set among them or not."""
        return self._merged[at].raw.labels.size if meta == "merged" else self._sizes[at]

    def _data(self, meta: str, reads_inputs: bool) -> list[DeviceData]:
        """The features of each seed, in the view too where they are read there."""
        found = []
        for at, merged in enumerate(self._merged):
            count, train = self._count(meta, at), merged.view.train
            seen = train if reads_inputs else train._replace(inputs=None)
            raw, seen = jax.tree.map(lambda x, n=count: x[:n], (merged.raw, seen))
            found.append(DeviceData(raw, dataclasses.replace(merged.view, train=seen)))
        return found

    def _method(self, ot: str, meta_cross_entropy: float, loss, steps: int) -> Method:
        epochs = self.config.head.epochs
        optimizer = make_optimizer(self.config.head.optimizer, steps, epochs)
        if ot == "none":
            return erm(
                self._model,
                optimizer,
                loss=loss,
                meta_cross_entropy=meta_cross_entropy,
                trainable="head/.*",
                batch_norm=False,
            )
        section = self.config.ot[ot]
        choices = dataclasses.replace(
            reweighting_of(section.choices, self._k), meta_cross_entropy=meta_cross_entropy
        )
        weight_optimizer = make_optimizer(section.weight_optimizer, steps, epochs)
        return ot_reweight(self._model, optimizer, weight_optimizer, self._k, choices, loss=loss)

    def _start(self, base: str, counts: np.ndarray, at: int) -> Start:
        variables, k = self._variables[at], self._k
        ones, zeros = jnp.ones(k), jnp.zeros(k)
        match base:
            case "cb":
                return Start(variables, effective_number_weights(counts, BETA), zeros)
            case "bs":
                return Start(variables, ones, _prior(counts))
            case "crt":
                key = jax.random.fold_in(jax.random.key(self._seeds[at]), 4)
                params = {**variables["params"], "head": self._program.fresh_head(key)}
                return Start({**variables, "params": params}, ones, zeros)
            case _:
                return Start(variables, ones, zeros)

    def _errors(self, variables: PyTree, bases: tuple[str, ...], counts: np.ndarray) -> dict:
        """Errors and balanced accuracies by part, in percent, of each base, `la` beside `ce`."""
        each = len(self._seeds)
        found: dict[str, dict] = {}
        for number, base in enumerate(bases):
            own = jax.tree.map(lambda x, at=number * each: x[at : at + each], variables)
            for shown in (base, "la") if base == "ce" else (base,):
                evaluate = self._evaluator(counts if shown == "la" else None)
                for name, examples in self._evaluated.items():
                    confusion = evaluate(own, examples).confusion
                    measures = {name: top1_error, f"{name}_balanced_accuracy": balanced_accuracy}
                    for key, measure in measures.items():
                        values = 100 * np.asarray(jax.vmap(measure)(confusion))
                        found.setdefault(shown, {})[key] = values
        return found

    def _evaluator(self, counts: np.ndarray | None):
        key = None if counts is None else tuple(counts)
        if key not in self._evaluators:
            model = self._model
            if counts is not None:
                prior = _prior(counts)
                model = model._replace(
                    logits=lambda head, z: self._model.logits(head, z) - prior[None, :]
                )
            self._evaluators[key] = make_evaluator(
                model, lambda z: z, self._k, batch_size=10_000, together=True
            )
        return self._evaluators[key]

    def _keep(self, keep, seed, prepared, variables):
        """Features: of the training set and the meta set behind it, and of what is evaluated."""
        data = prepared.data
        ids = prepared.split.meta
        stored = Examples(
            jnp.asarray(prepared.dataset.train_inputs[ids]),
            jnp.asarray(prepared.dataset.train_labels[ids]),
        )

        def joined(one, other):
            return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), one, other)

        seen = data.raw._replace(inputs=self._program.preprocessing.evaluate(data.raw.inputs))
        view = dataclasses.replace(data.view, train=joined(seen, data.view.meta))
        key = jax.random.fold_in(jax.random.key(seed), 2)
        merged = keep(variables, DeviceData(joined(data.raw, stored), view), key)

        parts = {"test": prepared.test, "held_out": prepared.held_out}
        evaluated = {
            name: self._program.read(variables, part)
            for name, part in parts.items()
            if part is not None
        }
        return merged, evaluated


def selected_errors(epochs: list[dict[str, np.ndarray]]) -> dict[str, list[float]]:
    """Test errors by seed: of the last epoch, and of the best by either part, as of a run.

    The best is the first epoch of the highest balanced accuracy, on the held-out part or on the
    test set itself. With a held-out part its own error at that epoch is `held_out_error`, by which
    one cell may be chosen over another.

    Args:
        epochs: of each epoch, errors `test` and perhaps `held_out`, and balanced accuracies of the
            same parts, such as `test_balanced_accuracy`, by seed.
    """
    test = np.stack([epoch["test"] for epoch in epochs])
    seeds = np.arange(test.shape[1])
    found = {"last": test[-1]}
    for part in ("held_out", "test"):
        if f"{part}_balanced_accuracy" in epochs[0]:
            # Rounded, since epochs with as many right may differ in a last bit.
            values = np.round([epoch[f"{part}_balanced_accuracy"] for epoch in epochs], 3)
            best = values.argmax(axis=0), seeds
            found[f"best_{part}"] = test[best]
            if part == "held_out":
                found["held_out_error"] = np.stack([epoch[part] for epoch in epochs])[best]
    return {name: [round(float(x), 4) for x in values] for name, values in found.items()}


def _on_features(preset: str) -> dict:
    """What kept features change of a preset, and what makes its losses comparable with others'."""
    changes = {"trainable": "head/.*", "batch_norm": False}
    if preset == "released":
        # Means of features, as inputs are not at hand; weights of mean one in a mean of losses.
        changes |= {"measure": "prototype", "features": "loss_pass", "reduction": "mean"}
    return changes


def _prior(counts: np.ndarray) -> Float[Array, "k"]:
    return jnp.asarray(log_prior("controls", counts, single=True), jnp.float32)
