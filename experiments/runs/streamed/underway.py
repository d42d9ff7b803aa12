"""What is done of the epoch that a run is in, saved beside the checkpoints of whole epochs."""

import contextlib
import pathlib
from collections.abc import Callable

from jaxtyping import PyTree

from experiments.runs.directory import UNDERWAY, check_unaltered
from otrw_jax.training.checkpoints import Checkpoints
from otrw_jax.training.devices import from_first, is_first_process
from otrw_jax.training.streaming import Save, Underway
from otrw_jax.training.underway import Saver, restore_underway


class UnderwayFolder:
    """The folder of what is done of a run's epoch; of several processes the first alone writes.

    It is empty between epochs. Epochs are counted over all stages.
    """

    def __init__(self, workdir: pathlib.Path, fingerprint: str, files: contextlib.ExitStack):
        """Opens it.

        Args:
            workdir: the run directory.
            fingerprint: of the run's config.
            files: closes it.

        Raises:
            OSError: it cannot be made.
        """
        self._workdir, self._folder = workdir, workdir / UNDERWAY
        self._about = {"config": fingerprint}
        self._checkpoints: Checkpoints | None = None
        if is_first_process():
            self._checkpoints = files.enter_context(Checkpoints(self._folder, keep=1))

    def settle(self, done: int) -> None:
        """Keeps what is of the epoch after so many, and whole; forgets all else.

        Args:
            done: whole epochs that are behind the run.

        Raises:
            ConfigMismatchError: the run's config was altered.
        """
        if self._checkpoints is None or not (steps := self._checkpoints.steps()):
            return
        fault = self._checkpoints.damage(steps[-1])
        if fault:
            self.forget(f"what is done of epoch {done + 1} is damaged ({fault})")
            return
        record = self._checkpoints.record()
        check_unaltered(self._workdir, record)
        if record["epoch"] != done:  # A kill came between an epoch's checkpoint and this one's end.
            self.forget()
        elif record["config"] != self._about["config"]:
            self.forget(f"epoch {done + 1} had begun before the run was extended")

    def forget(self, why: str = "") -> None:
        """Deletes what is done of an epoch; where there is something, `why` is told."""
        if self._checkpoints and self._checkpoints.steps():
            if why:
                print(f"{self._workdir}: {why}; it begins anew.", flush=True)
            self._checkpoints.forget_after(0)

    def begun(self, make_template: Callable[[], PyTree]) -> Underway | None:
        """What is done of the next epoch, in every process; None where it has not begun.

        Args:
            make_template: gives a state's shapes and types, as `Checkpoints.restore` takes it.

        Raises:
            CheckpointError: as `restore_underway`.
        """
        has_begun = bool(self._checkpoints and self._checkpoints.steps())
        if not from_first(has_begun):
            return None
        with contextlib.ExitStack() as files:
            found = self._checkpoints or files.enter_context(
                Checkpoints(self._folder, read_only=True)
            )
            restored = restore_underway(found, make_template())
        return restored and restored[1]

    def saver(self, save_every: int, before: int) -> Save | None:
        """What saves a stage's epochs; None in a process that does not write.

        Args:
            save_every: steps between two saves.
            before: epochs of the stages before.
        """
        if self._checkpoints is None:
            return None
        save = Saver(self._checkpoints, save_every, self._about)
        return lambda number, underway: save(before + number, underway)
