"""The directory of a call of `fit`: what it is, its checkpoints, and where it goes on."""

import contextlib
import os
import pathlib
import warnings
from typing import Any

from jaxtyping import PyTree

from otrw_jax.files import alone_in, read_json, write_json, writing
from otrw_jax.training.checkpoints import CheckpointError, Checkpoints
from otrw_jax.training.fitting.identity import versions

CALL = "fit.json"
PROGRAM = ".program"


class FitDirectory:
    """A directory that one call of `fit` writes to and goes on from.

    `fit.json` says which call it is, in hashes; `checkpoints/` has the newest two checkpoints,
    those at the stages' ends, and the one that is best by the held-out part.

    Attributes:
        done: number of the epochs behind.
        history: their records.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        call: dict[str, Any],
        ends: tuple[int, ...],
        files: contextlib.ExitStack,
    ):
        """Opens or makes the directory.

        Args:
            workdir: the directory.
            call: what the call is; JSON data, of one depth.
            ends: numbers of the stages' last epochs.
            files: holds the directory until it is closed.

        Raises:
            ValueError: the directory belongs to another call, or to another program.
            RunningError: another process trains in it.
            CheckpointError: none of its checkpoints is whole.
            OSError: it cannot be written.
        """
        workdir = pathlib.Path(workdir).expanduser()
        folder = workdir / "checkpoints"
        with writing(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
        files.enter_context(alone_in(workdir))
        if (workdir / CALL).exists():
            _check_call(workdir, call)
        elif folder.exists():
            raise ValueError(
                f"{workdir} holds checkpoints, and no {CALL} that says of which call of fit they "
                "are; choose another workdir."
            )
        else:
            write_json(workdir / CALL, call | {"versions": versions()})
        self._ends = ends
        self._checkpoints = files.enter_context(Checkpoints(folder, ends))
        self.done = self._last_whole(folder)
        self._checkpoints.forget_after(self.done)
        self.history: list[dict] = []
        if self.done:
            self.history = self._checkpoints.record(self.done)["history"]

    def restore(self, template: PyTree, number: int) -> Any:
        """The state at a checkpoint; raises as `Checkpoints.restore`."""
        return self._checkpoints.restore(template, number)

    def save(self, number: int, state: Any, history: list[dict], best: int | None) -> None:
        """Writes a checkpoint; raises as `Checkpoints.save`."""
        self._checkpoints.save(number, state, {"history": history}, best=best)

    def _last_whole(self, folder: pathlib.Path) -> int:
        """The newest checkpoint that, with the ends of the stages before it, is whole."""
        steps, damage = self._checkpoints.steps(), self._checkpoints.damage
        for step in reversed(steps):
            before = [end for end in self._ends if end < step]
            if not any(damage(at) for at in (step, *before)):
                return step
        if steps:
            raise CheckpointError(
                f"{folder}: none of the checkpoints {steps} is whole ({damage(steps[-1])}); "
                "restore the files from a copy, or choose another workdir to begin anew."
            )
        return 0


def _check_call(workdir: pathlib.Path, call: dict[str, Any]) -> None:
    """Refuses a directory of another call; programs are compared under the same versions alone."""
    there = read_json(workdir / CALL)
    if not isinstance(there, dict):
        raise ValueError(
            f"{workdir / CALL} is damaged: it says of no call; choose another workdir."
        )
    before, now = there.pop("versions", None), versions()
    names = [
        name
        for name in sorted(there.keys() | call.keys())
        if there.get(name) != call.get(name) and (before == now or not name.endswith(PROGRAM))
    ]
    # The arrays are among a program's constants: it is told where nothing else is.
    names = [name for name in names if not name.endswith(PROGRAM)] or names
    if names:
        told = [
            f"{name} is {there.get(name, 'absent')} there and {call.get(name, 'absent')} here"
            for name in names
        ]
        raise ValueError(
            f"{workdir} belongs to another call of fit: {'; '.join(told)}; choose another workdir, "
            "or repeat that call to go on with it."
        )
    if before != now:
        warnings.warn(
            f"{workdir} was begun under {before} and goes on under {now}: it ends like an "
            "uninterrupted call to rounding, not bit for bit.",
            RuntimeWarning,
            stacklevel=2,
        )
