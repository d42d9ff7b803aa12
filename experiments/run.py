"""One run of a recipe: data, stages, checkpoints and results, from a config and a seed."""

import pathlib
import platform
import time
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import otrw_jax
from experiments.recipes import make_model, make_stages, recipe_name
from experiments.reporting import Reporter
from otrw_jax.checkpoints import Checkpoints, read_json, write_json
from otrw_jax.data.augment import preprocessing
from otrw_jax.data.sources import load_dataset
from otrw_jax.data.splits import Split, make_split
from otrw_jax.evaluation import make_evaluator
from otrw_jax.methods.base import Examples, TrainingData
from otrw_jax.metrics import summarise
from otrw_jax.model import count_parameters
from otrw_jax.train import DeviceData, Stage, make_epoch, run_stage, start

# Fields that change how a run is done, and not what comes out of it.
HOW = (
    "data.data_dir",
    "checkpoint_every",
    "keep_checkpoints",
    "steps_per_call",
    "seeds",
    "stage1_from",
)


class ConfigMismatchError(ValueError):
    """A run directory belongs to a run of another config."""


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


def train(
    experiment: Experiment,
    workdir: str | pathlib.Path,
    seed: int,
    subset_seed: int,
    stage1_from: str | pathlib.Path = "",
) -> dict:
    """Trains, or goes on training, a run in `workdir`, and returns its results.

    Args:
        experiment: what is run.
        workdir: the run directory.
        seed: of the network's start, the order of the data and the augmentation.
        subset_seed: of the choice of examples.
        stage1_from: run directory whose first stage is taken over.

    Returns:
        `{"last": ..., "best_held_out": ..., "best_test": ...}`, each the metrics of one epoch of
        the last stage on the test set; None where there is no held-out part.

    Raises:
        ConfigMismatchError: the directory holds a run of another config.
        CheckpointError, TrainingDivergedError: see there.
    """
    workdir = pathlib.Path(workdir)
    config = ConfigDict(experiment.config)
    config.seed, config.subset_seed, config.stage1_from = seed, subset_seed, str(stage1_from)
    workdir.mkdir(parents=True, exist_ok=True)
    claim(workdir, config)
    prepared = experiment.prepare(subset_seed)
    stages = experiment.stages(prepared.split.counts)
    variables = experiment.initial_variables(seed, prepared)
    describe(workdir, experiment, prepared, variables)

    ends = stage_ends(stages)
    with Checkpoints(workdir / "checkpoints", ends, config.keep_checkpoints) as checkpoints:
        if stage1_from and not checkpoints.steps():
            take_over(experiment, pathlib.Path(stage1_from), workdir, checkpoints, prepared, seed)
        done = checkpoints.steps()[-1] if checkpoints.steps() else 0
        history = checkpoints.record()["history"] if done else []
        reporter = Reporter(workdir, config.recipe, ends[-1], history)
        try:
            for index, (stage, epoch) in enumerate(stages):
                begin = ends[index] - stage.epochs
                key = experiment.stage_key(seed, index)
                state = start(stage, key, variables, prepared.data)
                if done > begin:
                    state = checkpoints.restore(state, min(done, ends[index]))
                epochs = run_stage(
                    stage, epoch, state, prepared.data, key, first_epoch=max(0, done - begin)
                )
                for number, state, metrics, seconds in timed(epochs):
                    last = number + 1 == stage.epochs
                    record = {
                        "number": begin + number + 1,
                        "stage": stage.name,
                        "loss": metrics.pop("loss"),
                        "train_error": 100 * metrics.pop("error"),
                        **metrics,
                        "seconds": seconds,
                    }
                    if last or (number + 1) % config.evaluate_every == 0:
                        record |= experiment.evaluations(state.variables, prepared)
                    history.append(record)
                    if last or (number + 1) % config.checkpoint_every == 0:
                        best = best_record(history, "held_out")
                        content = {"history": history}
                        checkpoints.save(
                            record["number"], state, content, best=best and best["number"]
                        )
                    reporter.epoch(record)
                variables = state.variables
        finally:
            reporter.close()
    results = three_results(history)
    write_json(workdir / "results.json", results)
    return results


def timed(epochs):
    """Adds the seconds each epoch took, its compilation with the first."""
    clock = time.perf_counter()
    for number, state, metrics in epochs:
        yield number, state, metrics, time.perf_counter() - clock
        clock = time.perf_counter()


def stage_ends(stages) -> tuple[int, ...]:
    """Number of the last epoch of each stage, counted over all stages."""
    return tuple(int(end) for end in np.cumsum([stage.epochs for stage, _ in stages]))


def three_results(history: list[dict]) -> dict:
    """Last epoch, best epoch by the held-out part, best test epoch, of the last stage."""
    records = {
        "last": history[-1],
        "best_held_out": best_record(history, "held_out"),
        "best_test": best_record(history, "test"),
    }
    return {
        name: record and {"epoch": record["number"], **record["test"]}
        for name, record in records.items()
    }


def best_record(history: list[dict], part: str) -> dict | None:
    """The first epoch of the last stage with the highest balanced accuracy on a part."""
    records = [r for r in history if r["stage"] == history[-1]["stage"] and part in r]
    return max(records, key=lambda r: r[part]["balanced_accuracy"]) if records else None


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Writes the config of a new run; refuses a directory whose run has another."""
    path = workdir / "config.json"
    wanted = flatten(config.to_dict())
    if path.exists():
        found = flatten(read_json(path))
        differing = [
            f"{name} is {found.get(name, 'absent')!r} there and {wanted.get(name, 'absent')!r} here"
            for name in sorted(found.keys() | wanted.keys())
            if name not in HOW and found.get(name) != wanted.get(name)
        ]
        if differing:
            raise ConfigMismatchError(
                f"{workdir} holds a run of another config: {'; '.join(differing)}. Choose another "
                "--workdir, or repeat the run's own config to go on with it."
            )
    write_json(path, config.to_dict())


def take_over(experiment, source, workdir, checkpoints, prepared, seed):
    """Copies another run's first stage as this run's, after checking that it would be the same."""
    if not (source / "checkpoints").is_dir():
        raise FileNotFoundError(f"stage1_from: {source} holds no run; train it first.")
    found, wanted = (flatten(read_json(path / "config.json")) for path in (source, workdir))
    parts = ("data.", "model.", "stage1.", "seed", "subset_seed")
    differing = [
        name
        for name in sorted(found.keys() | wanted.keys())
        if name.startswith(parts)
        and name not in HOW
        and found.get(name) != wanted.get(name)
    ]
    if differing:
        raise ConfigMismatchError(
            f"stage1_from: the run in {source} differs in {', '.join(differing)}; its first stage "
            "is not this run's."
        )
    stage, _ = experiment.stages(prepared.split.counts)[0]
    variables = experiment.initial_variables(seed, prepared)
    template = start(stage, experiment.stage_key(seed, 0), variables, prepared.data)
    with Checkpoints(source / "checkpoints", read_only=True) as theirs:
        state = theirs.restore(template, stage.epochs)
        history = theirs.record(stage.epochs)["history"]
    checkpoints.save(stage.epochs, state, {"history": history})


class Restored(NamedTuple):
    """A checkpoint of a run: its number, its stage's name, its state, and the run's data."""

    number: int
    stage: str
    state: Any
    experiment: Experiment
    prepared: Prepared


def restore(workdir: str | pathlib.Path, which: str = "last", data_dir: str = "") -> Restored:
    """Restores a checkpoint of a run directory.

    Args:
        workdir: the run directory.
        which: `"last"`, a stage's name for its end, `"best_held_out"`, or an epoch's number.
        data_dir: where the data set is, if not where the run found it.

    Raises:
        FileNotFoundError: there is no run.
        CheckpointError: there is no such checkpoint.
        ValueError: `which` is none of these.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").exists():
        seeds = sorted(path.name for path in workdir.glob("seed_*"))
        inside = f"; it holds runs of several seeds, choose one: {', '.join(seeds)}"
        raise FileNotFoundError(f"{workdir} holds no run{inside if seeds else '; train first'}.")
    config = ConfigDict(read_json(workdir / "config.json"))
    config.data.data_dir = data_dir or config.data.data_dir
    experiment = Experiment(config)
    prepared = experiment.prepare(config.subset_seed)
    stages = experiment.stages(prepared.split.counts)
    ends = stage_ends(stages)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        number = _number(which, stages, checkpoints)
        index = next((i for i, end in enumerate(ends) if number <= end), len(ends) - 1)
        stage = stages[index][0]
        variables = experiment.initial_variables(config.seed, prepared)
        key = experiment.stage_key(config.seed, index)
        template = start(stage, key, variables, prepared.data)
        state = checkpoints.restore(template, number)
    return Restored(number, stage.name, state, experiment, prepared)


def _number(which, stages, checkpoints) -> int | None:
    names = {stage.name: end for (stage, _), end in zip(stages, stage_ends(stages), strict=True)}
    if which in names:
        return names[which]
    if which.isdigit():
        return int(which)
    history = checkpoints.record()["history"]
    if which == "last":
        return history[-1]["number"]
    best = best_record(history, "held_out")
    if which == "best_held_out" and best:
        return best["number"]
    known = ["last", *names, *(["best_held_out"] if best else []), "an epoch's number"]
    raise ValueError(f"checkpoint {which!r} is not known; choose {', '.join(known)}.")


def describe(workdir: pathlib.Path, experiment: Experiment, prepared: Prepared, variables) -> None:
    """Writes run.json: the subset's identity, the network's size, versions, device."""
    packages = ("jax", "jaxlib", "flax", "optax", "ott-jax", "orbax-checkpoint")
    device = jax.devices()[0]
    description = {
        "recipe": experiment.config.recipe,
        "fingerprint": prepared.split.fingerprint,
        "counts": prepared.split.counts.tolist(),
        "meta": int(prepared.split.meta.size),
        "held_out": int(prepared.split.held_out.size),
        "test": int(prepared.test.labels.shape[0]),
        "parameters": count_parameters(variables["params"]),
        "versions": {"python": platform.python_version(), "otrw_jax": otrw_jax.__version__}
        | {name: metadata.version(name) for name in packages},
        "device": f"{device.platform}: {device.device_kind}",
    }
    write_json(workdir / "run.json", description)
    print(
        f"{experiment.dataset.name}: {sum(description['counts'])} training images "
        f"{description['counts'] if len(description['counts']) <= 10 else ''}, "
        f"subset {description['fingerprint']}, {description['parameters']:,} parameters"
    )


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names; sequences as lists, as JSON gives them back."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: list(tree) if isinstance(tree, tuple) else tree}
    return {
        name: value
        for key, inner in tree.items()
        for name, value in flatten(inner, f"{prefix}{key}.").items()
    }
