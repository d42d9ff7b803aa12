"""Both stages on arrays of one's own: checked, trained, evaluated, resumed from a directory."""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from otrw_jax.checks import check_number
from otrw_jax.models.model import Model, predict
from otrw_jax.training.fitting.default_stages import two_stages
from otrw_jax.training.fitting.fitted import Fitted
from otrw_jax.training.fitting.given import Arrays, given_arrays
from otrw_jax.training.fitting.work import Work, as_they_are
from otrw_jax.training.loop import check_network, make_loop, run_stage
from otrw_jax.training.stages import Prepare, Stage


def fit(
    model: Model,
    train: Arrays,
    meta: Arrays | int | None,
    stages: Sequence[Stage] | None = None,
    *,
    test: Arrays | None = None,
    held_out: Arrays | None = None,
    prepare: Callable[[PyTree], PyTree] | None = None,
    augment: Prepare | None = None,
    evaluate_every: int = 1,
    checkpoint_every: int = 1,
    steps_per_call: int = 0,
    seed: int = 0,
    workdir: str | os.PathLike | None = None,
    watch: Callable[[dict], None] | None = None,
) -> Fitted:
    """Trains a network on arrays, stage after stage; by default as Guo et al. 2022, in two.

    All arguments are checked, and every stage is traced, before anything is trained. The arrays lie
    on one device, as they are stored. The same arguments give the same result, bit for bit.

    Args:
        model: the network; K is the number of its logits.
        train: inputs `[N, ...]`, of any numbers, and labels `[N]`, whole numbers of 0..K-1 of which
            each occurs.
        meta: the small balanced set that guides the weights, a pair like `train`; or how many
            examples of each class are split off `train`, which are then not trained on; or None,
            for methods that need none.
        stages: what is done, one after the other on the same network; `two_stages(model, K)` by
            default, which makes them by other presets, optimisers and lengths too.
        test: a pair like `train` that is evaluated.
        held_out: a pair like `train` that is evaluated, and chooses the epoch of the last stage:
            the first with the highest balanced accuracy. Without it, the last epoch is taken.
        prepare: from stored to network inputs, without augmentation; the identity by default.
        augment: the same in training, with a key for each example; `prepare` by default.
        evaluate_every: epochs of a stage between evaluations; its last is evaluated in any case.
        checkpoint_every: epochs of a stage between checkpoints; its last has one in any case.
        steps_per_call: as of `make_loop`; 1 is faster for convolutions on CPUs.
        seed: of the network's start, the meta set that is split off, the order of the examples and
            the augmentation.
        workdir: directory of checkpoints. The same call goes on from the last of them, and ends bit
            for bit like one that was not interrupted.
        watch: called with each epoch's record, as `Fitted.history` has it.

    Returns:
        The network, the weights of the examples, and the history.

    Raises:
        ValueError: arrays that do not fit one another, labels of no class, numbers that are not
            finite, a class without training or meta example, a batch larger than the training set,
            what a stage's method refuses, or a directory of another call; nothing is trained then.
        RunningError: another process trains in the directory.
        CheckpointError: a checkpoint cannot be written, or none is whole.
        TrainingDivergedError, LogitsNotFiniteError: a loss, the network or its logits are not
            finite; the directory keeps the epochs before.
    """
    often = Often(evaluate_every, checkpoint_every, steps_per_call)
    for name, number in often._asdict().items():
        check_number("fit", name, number, least=0 if name == "steps_per_call" else 1, whole=True)
    prepare = prepare or as_they_are
    shown = augment or (lambda keys, inputs: prepare(inputs))
    num_classes = _count_logits(model, train, prepare)
    given = given_arrays(train, meta, {"test": test, "held_out": held_out}, num_classes, seed)
    stages = tuple(stages or two_stages(model, num_classes))
    work = Work(model, given, stages, prepare, shown, seed, num_classes)
    programs, templates = zip(*map(work.trace, range(len(stages))), strict=True)
    with contextlib.ExitStack() as files:
        directory = None
        if workdir is not None:
            from otrw_jax.training.fitting.directory import FitDirectory  # Imports orbax.

            known = {"evaluate_every": evaluate_every, "steps_per_call": steps_per_call}
            directory = FitDirectory(workdir, work.call(programs, known), work.ends, files)
        return work.fitted(*_train(work, templates, directory, often, watch))


class Often(NamedTuple):
    """How often something is done; see `fit`."""

    evaluate_every: int
    checkpoint_every: int
    steps_per_call: int


def _train(
    work: Work,
    templates: tuple[Any, ...],
    directory: Any,
    often: Often,
    watch: Callable[[dict], None] | None,
) -> tuple[int, Any, list[dict]]:
    """The number and the state of the epoch that is chosen, and the history."""
    done, history = (directory.done, directory.history) if directory else (0, [])
    best: tuple[int, Any] = (0, None)
    variables = state = None
    for index, (stage, end) in enumerate(zip(work.stages, work.ends, strict=True)):
        last, begin = end == work.ends[-1], end - stage.epochs
        if done >= end:
            if not last:
                variables = directory.restore(templates[index], end).variables
            continue
        variables = work.initial() if variables is None else variables
        data, key = work.data_of(stage, variables), work.key(index)
        metrics_of = work.judge(stage, variables)
        loop = make_loop(stage, work.prepare_of(stage), steps_per_call=often.steps_per_call)
        if done > begin:
            initial = directory.restore(templates[index], done)
        else:
            initial = loop.start(key, variables, data)
        epochs = run_stage(loop, initial, data, key, max(0, done - begin))
        for number, state, means in epochs:
            assert isinstance(means, dict)  # Of one seed.
            epoch = number + 1
            error = 100 * means.pop("error")
            record: dict[str, Any] = {
                "number": begin + epoch,
                "stage": stage.name,
                "loss": means.pop("loss"),
            }
            record |= {"train_error": error, **means}
            if epoch == stage.epochs or epoch % often.evaluate_every == 0:
                record |= metrics_of(state.variables)
            history.append(record)
            chosen = _chosen(history)
            improved = last and "held_out" in record and chosen == begin + epoch
            if improved:
                best = chosen, jax.tree.map(jnp.copy, state)
            if epoch == stage.epochs or epoch % often.checkpoint_every == 0 or improved:
                check_network(stage, state.variables)
                if directory:
                    directory.save(begin + epoch, state, history, chosen)
            if watch is not None:
                watch(record)
        assert state is not None
        variables = state.variables
    number = _chosen(history)
    if number == best[0]:
        return number, best[1], history
    if number == work.ends[-1] and state is not None:
        return number, state, history
    return number, directory.restore(templates[-1], number), history


def _chosen(history: list[dict]) -> int:
    """The first epoch of the stage with the highest balanced accuracy on the held-out part.

    Where there is none, the last epoch.
    """
    records = [r for r in history if r["stage"] == history[-1]["stage"] and "held_out" in r]
    if not records:
        return history[-1]["number"]
    return max(records, key=lambda r: r["held_out"]["balanced_accuracy"])["number"]


def _count_logits(model: Model, train: Arrays, prepare: Callable[[PyTree], PyTree]) -> int:
    """K, by the network's shapes alone."""
    if not isinstance(train, tuple | list) or len(train) != 2:
        raise ValueError(f"fit: train is {type(train).__name__}; give a pair of inputs and labels.")
    inputs = train[0] if hasattr(train[0], "dtype") else np.asarray(train[0])
    if inputs.ndim < 2 or inputs.dtype.kind in "OSU":
        raise ValueError(
            f"fit: train: inputs are {inputs.dtype} of shape {inputs.shape}; give numbers, an "
            "array [N, ...] with one axis or more for each example."
        )

    def logits(inputs):
        seen = prepare(inputs)
        return predict(model, model.init(jax.random.key(0), seen), seen)

    kind = jax.dtypes.canonicalize_dtype(inputs.dtype)
    return jax.eval_shape(logits, jax.ShapeDtypeStruct((2, *inputs.shape[1:]), kind)).shape[-1]
