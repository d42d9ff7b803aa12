"""Runs of a recipe, from a config and a seed each: trained, resumed, taken over, restored."""

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PyTree
from ml_collections import ConfigDict

from experiments.experiment import Experiment, Prepared, stage_ends
from experiments.reporting import Reporter
from experiments.rundir import (
    ConfigMismatchError,
    alone_in,
    best_record,
    claim,
    describe,
    differing_first_stage,
    three_results,
)
from otrw_jax.checkpoints import Checkpoints, read_json, write_json
from otrw_jax.devices import from_first, is_first_process, wait_for_all
from otrw_jax.model import predict
from otrw_jax.seeds import stack, unstack
from otrw_jax.train import Stage, run_stage


class Run(NamedTuple):
    """What a run is beside its config.

    Attributes:
        workdir: the run directory.
        seed: of the network's start, the order of the data and the augmentation.
        subset_seed: of the choice of examples.
        stage1_from: run directory whose first stage is taken over.
    """

    workdir: pathlib.Path
    seed: int
    subset_seed: int
    stage1_from: str | pathlib.Path = ""


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
        workdir: see `Run`, as for the others.
        seed: of what is random in the training.
        subset_seed: of the choice of examples.
        stage1_from: run directory whose first stage is taken over.

    Returns:
        `{"last": ..., "best_held_out": ..., "best_test": ...}`, each the metrics of one epoch of
        the last stage on the test set; None where there is no held-out part.

    Raises:
        ConfigMismatchError: the directory holds a run of another config.
        CheckpointError, TrainingDivergedError: see there.
    """
    run = Run(pathlib.Path(workdir), seed, subset_seed, stage1_from)
    return train_together(experiment, [run])[0]


def train_together(experiment: Experiment, runs: list[Run]) -> list[dict]:
    """Trains, or goes on training, runs of several seeds, and returns the results of each.

    Runs that are as far as each other are trained together, by `jax.vmap`, as many at once as the
    config says.
    """
    with contextlib.ExitStack() as files:
        opened = [_OpenRun(experiment, run, len(runs) > 1, files) for run in runs]
        if not opened[0].done:
            experiment.check_stages(opened[0].seed, opened[0].prepared)
        for run in opened:
            if run.done == run.ends[-1]:  # A kill may have come before its last report.
                run.report(files, progress=False)
        at_once = experiment.seeds_at_once(len(runs))
        while group := _next_group(opened, experiment.config.checkpoint_every, at_once):
            with contextlib.ExitStack() as reports:
                for number, run in enumerate(group):
                    run.report(reports, progress=number == 0)
                for epoch, records, states, seen in _epochs_left(experiment, group):
                    number = records[0]["number"]
                    if number in group[0].ends or epoch % experiment.config.evaluate_every == 0:
                        _evaluate(experiment, records, states, seen)
                    for run, record, state in zip(group, records, states, strict=True):
                        run.keep(epoch, record, state)
        return [run.finish() for run in opened]


class _OpenRun:
    """A run directory while its run goes on. Of several processes the first alone writes."""

    def __init__(
        self, experiment: Experiment, run: Run, one_of_several: bool, files: contextlib.ExitStack
    ):
        self.run, self.seed = run, run.seed
        self._experiment, self._writes = experiment, is_first_process()
        self._name = run.workdir.name if one_of_several else ""
        config = ConfigDict(experiment.config)
        config.seed, config.subset_seed = run.seed, run.subset_seed
        config.stage1_from = str(run.stage1_from)
        if self._writes:
            run.workdir.mkdir(parents=True, exist_ok=True)
            files.enter_context(alone_in(run.workdir))
            claim(run.workdir, config)
        self.prepared = experiment.prepare(run.subset_seed)
        self.ends = stage_ends(experiment.loops(self.prepared.split.counts))
        self.variables = experiment.initial_variables(run.seed, self.prepared)
        if self._writes:
            describe(run.workdir, experiment, self.prepared, self.variables)
        # Runs that are trained together are saved one after the other: a kill in between leaves
        # some a checkpoint behind, and the others must still have that.
        keep = max(config.keep_checkpoints, 2) if one_of_several else config.keep_checkpoints
        folder = run.workdir / "checkpoints"
        if not self._writes:
            wait_for_all("the folder of the checkpoints is ready")
        self.checkpoints = files.enter_context(
            Checkpoints(folder, self.ends, keep, read_only=not self._writes)
        )
        if self._writes:
            if run.stage1_from and not self.checkpoints.steps():
                self._take_over()
            wait_for_all("the folder of the checkpoints is ready")
        steps = self.checkpoints.steps()
        self.done = from_first(steps[-1] if steps else 0)

    def go_back(self, done: int) -> None:
        """Forgets what came after a checkpoint."""
        if self.done > done and self._writes:
            self.checkpoints.forget_after(done)
        self.done = done

    def restore(self, index: int, number: int) -> Any:
        """The state of a stage at a checkpoint."""
        template = self._experiment.template(index, self.seed, self.prepared)
        return self.checkpoints.restore(template, number)

    def report(self, files: contextlib.ExitStack, progress: bool) -> None:
        """Starts to tell how the run goes on, from the history behind it."""
        self.history = self.checkpoints.record(self.done)["history"] if self.done else []
        if self._writes:
            title = f"{self._experiment.config.recipe} {self._name}".strip()
            self._reporter = Reporter(
                self.run.workdir, title, self.ends[-1], self.history, progress
            )
            files.callback(self._reporter.close)

    def keep(self, epoch: int, record: dict, state: Any) -> None:
        """Saves and reports an epoch, the `epoch`-th of its stage from one."""
        number = record["number"]
        self.history.append(record)
        self.done = number
        if not self._writes:
            return
        if number in self.ends or epoch % self._experiment.config.checkpoint_every == 0:
            best = best_record(self.history, "held_out")
            content = {"history": self.history}
            self.checkpoints.save(number, state, content, best=best and best["number"])
        self._reporter.epoch(record)

    def finish(self) -> dict:
        """The results, written into the run directory."""
        results = three_results(self.history)
        if self._writes:
            write_json(self.run.workdir / "results.json", results)
        return results

    def _take_over(self):
        """Copies another run's first stage as this run's, after checking that it is the same."""
        source = pathlib.Path(self.run.stage1_from)
        if not (source / "checkpoints").is_dir():
            raise FileNotFoundError(f"stage1_from: {source} holds no run; train it first.")
        differing = differing_first_stage(source, self.run.workdir)
        if differing:
            raise ConfigMismatchError(
                f"stage1_from: the run in {source} differs in {', '.join(differing)}; its first "
                "stage is not this run's."
            )
        template = self._experiment.template(0, self.seed, self.prepared)
        with Checkpoints(source / "checkpoints", read_only=True) as theirs:
            state = theirs.restore(template, self.ends[0])
            history = theirs.record(self.ends[0])["history"]
        self.checkpoints.save(self.ends[0], state, {"history": history})


def _evaluate(experiment, records, states, seen):
    """Adds the evaluations of a group's states, on the data its stage sees, to their records."""
    seeds = len(seen) if len(seen) > 1 else 0
    loops = experiment.loops(seen[0].split.counts, seeds)
    stage = next(loop.stage for loop in loops if loop.stage.name == records[0]["stage"])
    variables = [state.variables for state in states]
    if seeds:
        found = experiment.evaluations_together(stage, variables, seen)
    else:
        found = [experiment.evaluations(stage, variables[0], seen[0])]
    for record, one in zip(records, found, strict=True):
        record |= one


def _next_group(opened: list[_OpenRun], every: int, at_once: int) -> list[_OpenRun]:
    """Runs to train together next: those furthest behind, and those one checkpoint ahead."""
    left = [run for run in opened if run.done < run.ends[-1]]
    behind = min((run.done for run in left), default=0)

    def joins(run):
        near = 0 < run.done - behind <= every and behind in run.checkpoints.steps()
        return run.done == behind or near

    group = [run for run in left if joins(run)][:at_once]
    for run in group:
        run.go_back(behind)
    return group


def _epochs_left(
    experiment: Experiment, group: list[_OpenRun]
) -> Iterator[tuple[int, list[dict], list[Any], list[Prepared]]]:
    """Runs what a group of runs has left.

    Yields:
        The epoch's number within its stage, from one; each run's record, with the seconds of all
        of them, in a stage's first including the compilation and the features that are kept; each
        run's state; and its data as the stage sees them.
    """
    seeds = len(group) if len(group) > 1 else 0

    def together(trees):
        return stack(trees) if seeds else trees[0]

    def apart(tree):
        return unstack(tree, seeds) if seeds else [tree]

    done = group[0].done
    variables = [run.variables for run in group]
    loops = experiment.loops(group[0].prepared.split.counts, seeds)
    for index, (loop, end) in enumerate(zip(loops, stage_ends(loops), strict=True)):
        if done >= end:
            variables = [run.restore(index, end).variables for run in group]
            continue
        begin = end - loop.stage.epochs
        clock = time.perf_counter()
        seen = [
            experiment.for_stage(loop.stage, run.seed, run.prepared, before)
            for run, before in zip(group, variables, strict=True)
        ]
        data = together([one.data for one in seen])
        key = together([experiment.stage_key(run.seed, index) for run in group])
        if done > begin:
            initial = together([run.restore(index, done) for run in group])
            initial = experiment.devices.replicate(initial)
        else:
            initial = loop.start(key, together(variables), data)
        first = max(0, done - begin)
        for number, state, metrics in run_stage(loop, initial, data, key, first):
            seconds = time.perf_counter() - clock
            records = [
                {
                    "number": begin + number + 1,
                    "stage": loop.stage.name,
                    "loss": means.pop("loss"),
                    "train_error": 100 * means.pop("error"),
                    **means,
                    "seconds": seconds,
                    **({"seeds_together": seeds} if seeds else {}),
                }
                for means in (metrics if seeds else [metrics])
            ]
            yield number + 1, records, apart(state), seen
            clock = time.perf_counter()
        variables = [one.variables for one in apart(state)]


def restore_first(experiment: Experiment, run: Run) -> tuple[Prepared, Any]:
    """A run's data, and its network's variables after the first stage."""
    prepared = experiment.prepare(run.subset_seed)
    end = stage_ends(experiment.loops(prepared.split.counts))[0]
    template = experiment.template(0, run.seed, prepared)
    with Checkpoints(run.workdir / "checkpoints", read_only=True) as checkpoints:
        return prepared, checkpoints.restore(template, end).variables


class Restored(NamedTuple):
    """A checkpoint of a run: its number, its stage, its state, and the run's data."""

    number: int
    stage: Stage
    state: Any
    experiment: Experiment
    prepared: Prepared

    def logits(self, inputs: PyTree) -> Float[Array, "b k"]:
        """Logits of stored inputs, such as `prepared.test.inputs`, in evaluation mode.

        A transductive correction (`ot_correction`), which needs the whole test set, is not made.

        Raises:
            ValueError: the inputs are not like the stored ones: floats in place of bytes, another
                size or width.
        """
        _check_stored(inputs, self.prepared.test.inputs)
        model = self.experiment.trained_model(self.stage)
        seen = self.experiment.preprocessing.evaluate(inputs)
        return predict(model, self.state.variables, seen)


def _check_stored(inputs: Array, stored: Array) -> None:
    """Raises ValueError where inputs differ from the stored ones in kind, or in size.

    Clouds may have more or fewer points; the preprocessing says how many it needs.
    """
    whole = [jnp.issubdtype(x.dtype, jnp.integer) for x in (inputs, stored)]
    sizes = [x.shape[2:] if stored.ndim == 3 else x.shape[1:] for x in (inputs, stored)]
    if inputs.ndim != stored.ndim or sizes[0] != sizes[1] or whole[0] != whole[1]:
        raise ValueError(
            f"the inputs are {inputs.dtype} of shape {inputs.shape}, and this run's are stored as "
            f"{stored.dtype} of shape {stored.shape}; give them as prepared.test.inputs has them."
        )


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
    config.devices = 1
    experiment = Experiment(config)
    prepared = experiment.prepare(config.subset_seed)
    loops = experiment.loops(prepared.split.counts)
    ends = stage_ends(loops)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        number = _number(which, loops, checkpoints)
        index = next((i for i, end in enumerate(ends) if number <= end), len(ends) - 1)
        state = checkpoints.restore(experiment.template(index, config.seed, prepared), number)
    return Restored(number, loops[index].stage, state, experiment, prepared)


def _number(which, loops, checkpoints) -> int:
    names = {loop.stage.name: end for loop, end in zip(loops, stage_ends(loops), strict=True)}
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
