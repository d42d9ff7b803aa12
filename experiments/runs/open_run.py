"""A run directory while its run goes on: opened, gone on from a checkpoint, saved, finished."""

import contextlib
import pathlib
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.program.experiment import Experiment
from experiments.runs.directory import (
    check_same_data,
    check_unaltered,
    claim,
    describe,
    extended,
    holds_run,
)
from experiments.runs.display import Display
from experiments.runs.first_stage import taken_over
from experiments.runs.identity import fingerprint_of
from experiments.runs.journal import Reporter
from experiments.runs.outcomes import best_record, three_results
from experiments.runs.provenance import device_name
from experiments.runs.streamed.underway import UnderwayFolder
from otrw_jax.files import alone_in, read_json, write_json, writing
from otrw_jax.training.checkpoints import CheckpointError, Checkpoints
from otrw_jax.training.devices import from_first, is_first_process, wait_for_all
from otrw_jax.training.streaming import Save, Underway


class Run(NamedTuple):
    """What a run is beside its config.

    Attributes:
        workdir: the run directory.
        seed: of the network's start, the order of the data and the augmentation.
        subset_seed: of the choice of examples.
        stage1_from: run directory whose first stage is taken over, or a network file.
    """

    workdir: pathlib.Path
    seed: int
    subset_seed: int
    stage1_from: str | pathlib.Path = ""


class OpenRun:
    """A run directory while its run goes on. Of several processes the first alone writes."""

    def __init__(
        self,
        experiment: Experiment,
        run: Run,
        one_of_several: bool,
        files: contextlib.ExitStack,
        extend: bool = False,
    ):
        self.run, self.seed = run, run.seed
        self._experiment, self._writes = experiment, is_first_process()
        self._name = run.workdir.name if one_of_several else ""
        config = ConfigDict(experiment.config)
        config.seed, config.subset_seed = run.seed, run.subset_seed
        config.stage1_from = str(run.stage1_from)
        if self._writes:
            with writing(run.workdir):
                run.workdir.mkdir(parents=True, exist_ok=True)
            files.enter_context(alone_in(run.workdir))
            changes = claim(run.workdir, config, extend)
        self._fingerprint = fingerprint_of(config.to_dict())
        self.prepared = experiment.prepare(run.subset_seed)
        self.program = experiment.program(self.prepared)
        self.ends = self.program.ends
        self.variables = self.program.initial_variables(run.seed)
        if self._writes:
            if holds_run(run.workdir):
                check_same_data(run.workdir, self.prepared)
            _tell_of_another_device(run.workdir)
            describe(run.workdir, self.program, self.prepared, self.variables)
        # Runs that are trained together are saved one after the other: a kill in between leaves
        # some a checkpoint behind, and the others must still have that.
        keep = max(config.keep_checkpoints, 2) if one_of_several else config.keep_checkpoints
        folder = run.workdir / "checkpoints"
        if not self._writes:
            wait_for_all("the folder of the checkpoints is ready")
        self.checkpoints = files.enter_context(
            Checkpoints(folder, self.ends, keep, read_only=not self._writes)
        )
        self.underway: UnderwayFolder | None = None
        if self.program.streamed:
            self.underway = UnderwayFolder(run.workdir, self._fingerprint, files)
        if self._writes:
            if run.stage1_from and not self.checkpoints.steps():
                given = self.program, self.prepared, run.seed, self.variables
                state, history = taken_over(run.stage1_from, run.workdir, *given)
                content = {"history": history, "config": self._fingerprint}
                self.checkpoints.save(self.ends[0], state, content)
            done = self._last_whole()
            if done:
                check_unaltered(run.workdir, self.checkpoints.record(done))
            self.checkpoints.forget_after(done)
            if changes:
                self._check_extension(done)
                extended(run.workdir, config, changes, done)
            if self.underway:
                self.underway.settle(done)
            wait_for_all("the folder of the checkpoints is ready")
        self.done = from_first(done if self._writes else 0)

    @property
    def complete(self) -> bool:
        """Whether all epochs are behind it."""
        return self.done == self.ends[-1]

    def go_back(self, done: int) -> None:
        """Forgets what came after a checkpoint."""
        if self.done > done and self._writes:
            self.checkpoints.forget_after(done)
        self.done = done

    def restore(self, index: int, number: int) -> Any:
        """The state of a stage at a checkpoint."""
        template = self.program.template(index, self.prepared)
        return self.checkpoints.restore(template, number)

    def begun(self, index: int) -> Underway | None:
        """What is done of the next epoch, of a stage; None where it has not begun."""
        if self.underway is None:
            return None
        return self.underway.begun(lambda: self.program.template(index, self.prepared))

    def saver(self, before: int) -> Save | None:
        """What saves a stage's epochs while they go on, those of streamed images.

        Args:
            before: epochs of the stages before.
        """
        if self.underway is None:
            return None
        return self.underway.saver(self._experiment.config.save_every, before)

    def report(self, files: contextlib.ExitStack, display: Display) -> None:
        """Starts to tell how the run goes on, from the history behind it."""
        self.history = self.checkpoints.record(self.done)["history"] if self.done else []
        if self._writes:
            title = f"{self._experiment.config.recipe} {self._name}".strip()
            self._reporter = Reporter(self.run.workdir, title, self.history, display)
            files.callback(self._reporter.close)

    def saves(self, epoch: int, number: int) -> bool:
        """Whether `keep` saves an epoch, the `epoch`-th of its stage from one."""
        return number in self.ends or epoch % self._experiment.config.checkpoint_every == 0

    def keep(self, epoch: int, record: dict, state: Any) -> None:
        """Saves and reports an epoch, the `epoch`-th of its stage from one."""
        number = record["number"]
        self.history.append(record)
        self.done = number
        if not self._writes:
            return
        if self.saves(epoch, number):
            best = best_record(self.history, "held_out")
            content = {"history": self.history, "config": self._fingerprint}
            self.checkpoints.save(number, state, content, best=best and best["number"])
            if self.underway:
                self.underway.forget()
        self._reporter.epoch(record)

    def finish(self) -> dict:
        """The results, written into the run directory."""
        results = three_results(self.history)
        if self._writes:
            write_json(self.run.workdir / "results.json", results)
        return results

    def _check_extension(self, done: int) -> None:
        """Says what keeps an extension from going on, before the config is written."""
        if done >= self.ends[-1]:
            raise ValueError(
                f"the run in {self.run.workdir} has all its epochs behind it; give more of them to "
                "go on with other rates."
            )
        index = next(i for i, end in enumerate(self.ends) if done < end)
        if done > (self.ends[index - 1] if index else 0):
            template = self.program.template(index, self.prepared)
            self.checkpoints.check(template, done)

    def _last_whole(self) -> int:
        """The newest checkpoint from which the run can go on; 0 where there is none at all.

        Raises:
            CheckpointError: there are some, and none of them is whole.
        """
        steps = self.checkpoints.steps()
        told: list[str] = []
        for step in reversed(steps):
            # A later stage begins with the network that the earlier ones have left.
            before = [end for end in self.ends if end < step < self.ends[-1]]
            found = {at: self.checkpoints.damage(at) for at in (step, *before)}
            damaged = [f"checkpoint {at} is damaged ({what})" for at, what in found.items() if what]
            if not damaged:
                for sentence in dict.fromkeys(told):
                    print(f"{self.run.workdir}: {sentence}; going on from {step}.", flush=True)
                return step
            told += damaged
        if told:
            raise CheckpointError(
                f"{self.run.workdir / 'checkpoints'}: {', '.join(dict.fromkeys(told))}, and no "
                "whole one is left to go on from; restore a file from a copy, or choose another "
                "--workdir to begin anew."
            )
        return 0


def _tell_of_another_device(workdir: pathlib.Path) -> None:
    """Says where a run goes on on another device than it was on until now."""
    before = None
    with contextlib.suppress(OSError, ValueError):  # It is written anew in any case.
        before = read_json(workdir / "run.json").get("device")
    if before and before != device_name():
        print(
            f"{workdir}: until now on {before}; from here on {device_name()}, which rounds in its "
            "own way: it ends like an uninterrupted run to rounding, not bit for bit."
        )
