"""Epochs of streamed inputs that are under way, saved in checkpoints of their own."""

import jax
import numpy as np
from jaxtyping import PyTree

from otrw_jax.checks import check_number
from otrw_jax.training.checkpoints import CheckpointError, Checkpoints
from otrw_jax.training.streaming import Underway


class Saver:
    """Saves what is done of an epoch; call it as `save` of `run_streamed`.

    Checkpoints are numbered by the steps behind them, over the stage, as all epochs have as many.
    """

    def __init__(self, checkpoints: Checkpoints, save_every: int, about: dict | None = None):
        """Saves nothing yet.

        Args:
            checkpoints: a folder for them alone; the newest is gone on from.
            save_every: steps between two of an epoch, at least; one comes with the end of a call of
                the device.
            about: JSON data that their records have beside, such as what the run is.

        Raises:
            ValueError: `save_every` is less than 1.
        """
        check_number("Saver", "save_every", save_every, least=1, whole=True)
        self._checkpoints, self._every, self._about = checkpoints, save_every, about or {}
        self._last: int | None = None

    def __call__(self, number: int, underway: Underway) -> None:
        """Saves, where it is due, epoch `number` of the stage.

        Raises:
            CheckpointError: as `Checkpoints.save`.
        """
        begin = number * len(underway.ids)
        step = begin + underway.done
        if self._last is None:  # Those of a run that has gone back are written again.
            self._checkpoints.forget_after(step - 1)
            self._last = max(self._checkpoints.steps(), default=0)
        if step - max(begin, self._last) < self._every:
            return
        arrays = underway._asdict()
        del arrays["done"], arrays["examples"]
        record = {
            **self._about,
            "epoch": number,
            "done": underway.done,
            "examples": underway.examples,
            "ids": list(underway.ids.shape),
            "totals": {
                name: [x.dtype.name for x in sums] for name, sums in arrays["totals"].items()
            },
        }
        self._checkpoints.save(step, arrays, record)
        self._last = step


def restore_underway(checkpoints: Checkpoints, template: PyTree) -> tuple[int, Underway] | None:
    """The epoch that was saved last, and what is done of it; None where none was.

    An epoch that has ended since is saved by its run: compare the number with that of its epochs.

    Args:
        checkpoints: those of a `Saver`.
        template: of the method's state, as that of `Checkpoints.restore`.

    Raises:
        CheckpointError: as `Checkpoints.restore`, or the checkpoint is none of a `Saver`.
    """
    if not checkpoints.steps():
        return None
    record = checkpoints.record()
    if not {"epoch", "done", "ids", "totals"} <= record.keys():
        raise CheckpointError(
            f"checkpoint {checkpoints.steps()[-1]} is of no epoch under way; give those of Saver a "
            "folder of their own."
        )
    found = checkpoints.restore(
        {
            "state": template,
            "ids": jax.ShapeDtypeStruct(tuple(record["ids"]), np.int32),
            "totals": {
                name: tuple(jax.ShapeDtypeStruct((), dtype) for dtype in sums)
                for name, sums in record["totals"].items()
            },
        }
    )
    ids = np.asarray(found["ids"])
    underway = Underway(
        found["state"], ids, record["done"], found["totals"], record.get("examples")
    )
    return record["epoch"], underway
