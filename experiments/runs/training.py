"""Runs of a recipe, a seed each: trained or gone on with, alone or together, epoch by epoch."""

import contextlib
import math
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from jaxtyping import PyTree

from experiments.program.compiled import Program
from experiments.program.experiment import Experiment
from experiments.program.layout import seeds_at_once
from experiments.program.prepared import Prepared
from experiments.program.scores import scores, scores_together
from experiments.runs.directory import check_place
from experiments.runs.display import Display
from experiments.runs.open_run import OpenRun, Run
from otrw_jax.training.devices import is_first_process
from otrw_jax.training.evaluation import LogitsNotFiniteError
from otrw_jax.training.loop import (
    EpochMetrics,
    Loop,
    TrainingDivergedError,
    check_network,
    run_stage,
)
from otrw_jax.training.seeds import stack, unstack
from otrw_jax.training.stages import Stage
from otrw_jax.training.streaming import run_streamed


class OutOfTimeError(RuntimeError):
    """Training was to stop at a time that has come; what is trained is saved."""


def train(
    experiment: Experiment,
    workdir: str | pathlib.Path,
    seed: int,
    subset_seed: int,
    stage1_from: str | pathlib.Path = "",
    extend: bool = False,
) -> dict:
    """Trains, or goes on training, a run in `workdir`, and returns its results.

    Args:
        experiment: what is run.
        workdir: see `Run`, as for the others.
        seed: of what is random in the training.
        subset_seed: of the choice of examples.
        stage1_from: run directory whose first stage is taken over, or a network file.
        extend: whether a run that is there goes on with the config's epochs and rates, where these
            are others than its own.

    Returns:
        `{"last": ..., "best_held_out": ..., "best_test": ...}`, each the metrics of one epoch of
        the last stage on the test set; None where there is no held-out part.

    Raises:
        ConfigMismatchError: the directory holds a run of another config, or other runs.
        CheckpointError, TrainingDivergedError: see there.
    """
    run = Run(pathlib.Path(workdir).expanduser(), seed, subset_seed, stage1_from)
    return train_together(experiment, [run], extend)[0]


def train_together(
    experiment: Experiment, runs: list[Run], extend: bool = False, until: float = math.inf
) -> list[dict]:
    """Trains, or goes on training, runs of several seeds, and returns the results of each.

    Runs that are as far as each other are trained together, by `jax.vmap`, as many at once as the
    config says.

    Args:
        experiment: what is run.
        runs: one a seed.
        extend: as of `train`.
        until: of `time.monotonic`, by when to stop where no further epoch fits.

    Raises:
        OutOfTimeError: another epoch would end after `until`; besides, as `train`.
    """
    if is_first_process():
        for run in runs:
            check_place(run.workdir)
    several = f", {len(runs)} seeds" if len(runs) > 1 else ""
    with contextlib.ExitStack() as files:
        display = Display(f"{experiment.config.recipe}{several}", "preparing the data")
        files.callback(display.close)
        opened = [OpenRun(experiment, run, len(runs) > 1, files, extend) for run in runs]
        if len(runs) > 1 and opened[0].program.streamed and is_first_process():
            print("the seeds are trained in turn, since their images are streamed.", flush=True)
        if not opened[0].done:
            opened[0].program.check(opened[0].prepared)
        for run in opened:
            if run.complete:  # A kill may have come before its last report.
                run.report(files, display)
        at_once = seeds_at_once(experiment.config, experiment.devices, len(runs))
        while group := _next_group(opened, experiment.config.checkpoint_every, at_once):
            display.begin(sum(run.done for run in opened), sum(run.ends[-1] for run in opened))
            with contextlib.ExitStack() as reports:
                for run in group:
                    run.report(reports, display)
                begun = time.monotonic()
                for epoch, records, states, seen in _left(experiment, group, display):
                    number = records[0]["number"]
                    with _way_out(experiment, group):
                        if number in group[0].ends or epoch % experiment.config.evaluate_every == 0:
                            display.waiting("evaluating", told=False)
                            _evaluate(group[0].program, records, states, seen)
                        if group[0].saves(epoch, number):
                            _check_networks(group[0].program, records, states)
                    for run, record, state in zip(group, records, states, strict=True):
                        run.keep(epoch, record, state)
                    ended, left = time.monotonic(), [run for run in opened if not run.complete]
                    if left and ended + (ended - begun) > until:
                        raise OutOfTimeError(f"after epoch {number} no further one fits.")
                    begun = ended
        return [run.finish() for run in opened]


def _evaluate(program: Program, records: list[dict], states: list, seen: list[Prepared]) -> None:
    """Adds the scores of a group's states, on the data their stage sees, to their records."""
    stage = _stage_of(program, records)
    variables = [state.variables for state in states]
    if len(seen) > 1:
        found = scores_together(program, stage, variables, seen)
    else:
        found = [scores(program, stage, variables[0], seen[0])]
    for record, one in zip(records, found, strict=True):
        record |= one


def _check_networks(program: Program, records: list[dict], states: list) -> None:
    """Refuses to save a group's states where a network is not finite, evaluated or not."""
    for state in states:
        check_network(_stage_of(program, records), state.variables)


def _stage_of(program: Program, records: list[dict]) -> Stage:
    """The stage that a group's records are of."""
    return next(stage for stage in program.stages if stage.name == records[0]["stage"])


def _next_group(opened: list[OpenRun], every: int, at_once: int) -> list[OpenRun]:
    """Runs to train together next: those furthest behind, and those one checkpoint ahead.

    These go back. Otherwise a kill between the saves of two seeds, the first and the last among
    them, would leave one to be trained in another program, whose results differ by rounding.
    Those that are trained in turn go on from where they are, what has begun first.
    """
    left = [run for run in opened if not run.complete]
    if not left:
        return []
    if at_once == 1:
        return [max(left, key=lambda run: run.done)]
    behind = min(run.done for run in left)

    def joins(run):
        near = run.done - behind <= every and (not behind or not run.checkpoints.damage(behind))
        return run.done == behind or (run.done > behind and near)

    group = [run for run in opened if joins(run)]
    if len(group) > at_once:
        group = [run for run in group if not run.complete][:at_once]
    for run in group:
        run.go_back(behind)
    return group


def _left(experiment: Experiment, group: list[OpenRun], display: Display):
    """As `_epochs_left`; where training diverges, it says what the run directories still have."""
    with _way_out(experiment, group):
        yield from _epochs_left(experiment, group, display)


@contextlib.contextmanager
def _way_out(experiment: Experiment, group: list[OpenRun]) -> Iterator[None]:
    """Says where training diverges what the run directories still have, and how to go on."""
    try:
        yield
    except (TrainingDivergedError, LogitsNotFiniteError) as error:
        if group[0].underway:  # Of no use: it would diverge again.
            group[0].underway.forget()
        config, workdir, done = experiment.config, group[0].run.workdir, group[0].done
        second = done >= group[0].ends[0]
        section = f"stage2.{config.recipe}" if second else "stage1"
        field = f"--config.{section}.optimizer.learning_rate"
        saved = group[0].checkpoints.steps()
        way = f"repeat the command with a smaller {field}"
        if saved:
            way = f"{workdir} keeps the epochs up to {saved[-1]}: {way} and --extend to go on there"
        first = f", with --config.stage1_from={workdir} for its first stage" if second else ""
        raise TrainingDivergedError(f"{error} {way}, or take another --workdir{first}.") from error


def _epochs_left(
    experiment: Experiment, group: list[OpenRun], display: Display
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

    done, program = group[0].done, group[0].program
    variables = [run.variables for run in group]
    for index, (loop, end) in enumerate(zip(program.loops(seeds), program.ends, strict=True)):
        if done >= end:
            variables = [run.restore(index, end).variables for run in group]
            continue
        begin = end - loop.stage.epochs
        clock = time.perf_counter()
        told = experiment.first_time(loop) and is_first_process()
        if loop.stage.feature_copies:
            display.waiting(f"{loop.stage.name}: features that are kept", told)
        seen = [
            program.seen(loop.stage, run.seed, run.prepared, before)
            for run, before in zip(group, variables, strict=True)
        ]
        data = together([one.data for one in seen])
        key = together([program.stage_key(run.seed, index) for run in group])
        given = together(variables), data, key, _tick(display, len(group))
        epochs = _epochs(loop, group, index, begin, *given)
        display.waiting(f"{loop.stage.name}: {'compiling' if told else 'training'}", told)
        for number, state, metrics in epochs:
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
                for means in (metrics if isinstance(metrics, list) else [metrics])
            ]
            yield number + 1, records, apart(state), seen
            clock = time.perf_counter()
        variables = [one.variables for one in apart(state)]


def _epochs(
    loop: Loop, group: list[OpenRun], index: int, begin: int, variables: PyTree, data, key, tick
) -> Iterator[tuple[int, Any, EpochMetrics]]:
    """The epochs of a stage that a group of runs has left, as `run_stage` has them.

    Args:
        loop: the stage, compiled.
        group: which is in this stage, or before it.
        index: of the stage.
        begin: epochs of the stages before.
        variables: the network before the stage, of each run together; and the next two.
        data: as the stage sees them.
        key: of the stage.
        tick: of `Loop.epoch`.
    """
    program, done = group[0].program, group[0].done
    begun = group[0].begun(index)
    if begun is not None:
        initial = None
    elif done > begin:
        states = [run.restore(index, done) for run in group]
        initial = program.devices.replicate(stack(states) if len(group) > 1 else states[0])
    else:
        initial = loop.start(key, variables, data)
    first = max(0, done - begin)
    if not program.streamed:
        return run_stage(loop, initial, data, key, first, tick)
    save = group[0].saver(begin)
    return run_streamed(loop, initial, data, key, first, tick, begun=begun, save=save)


def _tick(display: Display, runs: int):
    """What moves the bar within an epoch of so many runs; None where nobody sees it."""
    return (lambda share: display.within(share * runs)) if display.terminal else None
