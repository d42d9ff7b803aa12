"""One run of a recipe, from a config and a seed: trained, resumed, taken over, restored."""

import pathlib
import time
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.experiment import Experiment, Prepared, stage_ends
from experiments.reporting import Reporter
from experiments.rundir import (
    HOW,
    ConfigMismatchError,
    best_record,
    claim,
    describe,
    flatten,
    three_results,
)
from otrw_jax.checkpoints import Checkpoints, read_json, write_json
from otrw_jax.train import run_stage, start


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
            for epoch, record, state in epochs_left(
                experiment, seed, variables, prepared, checkpoints, done
            ):
                last = record["number"] in ends
                if last or epoch % config.evaluate_every == 0:
                    record |= experiment.evaluations(state.variables, prepared)
                history.append(record)
                if last or epoch % config.checkpoint_every == 0:
                    best = best_record(history, "held_out")
                    content = {"history": history}
                    checkpoints.save(record["number"], state, content, best=best and best["number"])
                reporter.epoch(record)
        finally:
            reporter.close()
    results = three_results(history)
    write_json(workdir / "results.json", results)
    return results


def epochs_left(experiment, seed, variables, prepared, checkpoints, done):
    """Runs what a run has left, from its checkpoint after `done` epochs.

    Yields:
        The epoch's number within its stage, from one; its record, its seconds including the
        compilation in a stage's first; and the state.
    """
    stages = experiment.stages(prepared.split.counts)
    for index, ((stage, epoch), end) in enumerate(zip(stages, stage_ends(stages), strict=True)):
        begin = end - stage.epochs
        key = experiment.stage_key(seed, index)
        initial = start(stage, key, variables, prepared.data)
        if done > begin:
            initial = checkpoints.restore(initial, min(done, end))
        state = initial
        clock = time.perf_counter()
        first = max(0, done - begin)
        for number, state, metrics in run_stage(stage, epoch, initial, prepared.data, key, first):
            record = {
                "number": begin + number + 1,
                "stage": stage.name,
                "loss": metrics.pop("loss"),
                "train_error": 100 * metrics.pop("error"),
                **metrics,
                "seconds": time.perf_counter() - clock,
            }
            yield number + 1, record, state
            clock = time.perf_counter()
        variables = state.variables


def take_over(experiment, source, workdir, checkpoints, prepared, seed):
    """Copies another run's first stage as this run's, after checking that it would be the same."""
    if not (source / "checkpoints").is_dir():
        raise FileNotFoundError(f"stage1_from: {source} holds no run; train it first.")
    found, wanted = (flatten(read_json(path / "config.json")) for path in (source, workdir))
    parts = ("data.", "model.", "stage1.", "seed", "subset_seed")
    differing = [
        name
        for name in sorted(found.keys() | wanted.keys())
        if name.startswith(parts) and name not in HOW and found.get(name) != wanted.get(name)
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
