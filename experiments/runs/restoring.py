"""Checkpoints of runs, restored: with the data of the run, and its network ready for inputs."""

import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PyTree
from ml_collections import ConfigDict

from experiments.configs.kinds import place_field
from experiments.program.compiled import Program
from experiments.program.data import Source
from experiments.program.experiment import Experiment
from experiments.program.prepared import Prepared
from experiments.runs.directory import (
    check_same_data,
    check_unaltered,
    holds_run,
    read_config,
    runs_below,
)
from experiments.runs.open_run import Run
from experiments.runs.outcomes import best_record
from otrw_jax.training.checkpoints import Checkpoints
from otrw_jax.training.stages import Stage
from otrw_jax.training.streaming import Inputs


def restore_first(experiment: Experiment, run: Run) -> tuple[Prepared, Any]:
    """A run's data, and its network's variables after the first stage."""
    prepared = experiment.prepare(run.subset_seed)
    check_same_data(run.workdir, prepared)
    program = experiment.program(prepared)
    with Checkpoints(run.workdir / "checkpoints", read_only=True) as checkpoints:
        state = checkpoints.restore(program.template(0, prepared), program.ends[0])
        return prepared, state.variables


class Restored(NamedTuple):
    """A checkpoint of a run: its number, its stage, its state; and the run's program and data."""

    number: int
    stage: Stage
    state: Any
    program: Program
    prepared: Prepared
    source: Source

    def logits(self, inputs: PyTree) -> Float[Array, "b k"]:
        """Logits of stored inputs, such as `prepared.test.inputs`, in evaluation mode.

        Those on the disk are read as many at a time as a step of the stage has.

        A transductive correction (`ot_correction`), which needs the whole test set, is not made.

        Raises:
            ValueError: the inputs are not like the stored ones: floats in place of bytes, another
                size or width.
        """
        if isinstance(inputs, Inputs):
            with inputs.batches(np.arange(len(inputs)), self.stage.batch_size) as read:
                return jnp.concatenate([self.logits(batch) for batch in read])
        inputs = jnp.asarray(inputs)
        _check_stored(inputs, self.prepared.test.inputs)
        return self.program.predictor(self.stage)(self.state.variables, inputs)


def _check_stored(inputs: Array, stored: Array) -> None:
    """Raises ValueError where inputs differ from the stored ones in kind, or in size.

    Clouds may have more or fewer points; the preprocessing says how many it needs.
    """
    shape, like = inputs.shape, stored.shape
    whole = [jnp.issubdtype(x.dtype, jnp.integer) for x in (inputs, stored)]
    first = 2 if len(like) == 3 else 1
    if len(shape) != len(like) or shape[first:] != like[first:] or whole[0] != whole[1]:
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
        ConfigMismatchError: its config is gone, or was altered; the data are not the run's.
        CheckpointError: there is no such checkpoint, or it is damaged.
        ValueError: `which` is none of these.
    """
    workdir = pathlib.Path(workdir).expanduser()
    if not holds_run(workdir):
        names = [str(path.relative_to(workdir)) for path in runs_below(workdir)]
        inside = f"; it holds several, choose one: {', '.join(names)}"
        raise FileNotFoundError(f"{workdir} holds no run{inside if names else '; train first'}.")
    saved = read_config(workdir)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        whole = next((at for at in checkpoints.steps() if not checkpoints.damage(at)), None)
        check_unaltered(workdir, checkpoints.record(whole))
    config = ConfigDict({name: part for name, part in saved.items() if name != "extended"})
    place = place_field(config.data.name)
    config.data[place] = data_dir or config.data[place]
    config.devices = 1
    experiment = Experiment(config, new=False)
    prepared = experiment.prepare(config.subset_seed)
    check_same_data(workdir, prepared)
    program = experiment.program(prepared)
    ends = program.ends
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        number = _number(which, program, checkpoints)
        index = next((i for i, end in enumerate(ends) if number <= end), len(ends) - 1)
        state = checkpoints.restore(program.template(index, prepared), number)
    return Restored(number, program.stages[index], state, program, prepared, experiment.source)


def _number(which: str, program: Program, checkpoints: Checkpoints) -> int:
    ends = zip(program.stages, program.ends, strict=True)
    names = {stage.name: end for stage, end in ends}
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
