"""Checkpoints of a run, by orbax: what is saved, which are kept, and how they are restored."""

import pathlib
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax import Array
from jaxtyping import PyTree

from otrw_jax.files import read_json, uninterrupted, write_json, writing
from otrw_jax.paths import path_name
from otrw_jax.training.checksums import checksums, damage

SUMS = "checksums.json"
ROOM = 2**18
"""Bytes that a checkpoint takes beside its arrays, at most: its record and its small files."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, is missing, damaged, or belongs to another model."""


class Checkpoints:
    """The checkpoints of one run, numbered by the epochs behind them, over all stages.

    Where there are several processes, one may write and all may read; none waits for another.

    Each holds the state of the method and a record: plain JSON with the run's history. They are
    written beside and renamed, so a kill at any moment leaves the last complete one. The newest
    few, the last of each stage and the one marked best are kept. Checksums of its files lie in
    each, and are compared before it is read; those of earlier versions have none. Ctrl-C waits
    until a file operation has ended.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        stage_ends: tuple[int, ...] = (),
        keep: int = 2,
        read_only: bool = False,
    ):
        """Opens the folder.

        Args:
            directory: folder of the checkpoints.
            stage_ends: numbers that are never deleted.
            keep: how many of the newest are kept.
            read_only: only read. Otherwise the folder is created, and what a killed run left half
                written is deleted, so two that write must not be open at once.
        """
        self._directory = pathlib.Path(directory).absolute()
        self._policy = _Keep(stage_ends, keep)
        self._damage: dict[int, str | None] = {}
        if not read_only:  # Orbax does not create it where there are several processes.
            with writing(self._directory):
                self._directory.mkdir(parents=True, exist_ok=True)
        alone = _alone()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=not read_only,
            create=False,
            read_only=read_only,
            save_interval_steps=0 if read_only else 1,
            multiprocessing_options=alone,
        )
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=options,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
                "record": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
            },
        )

    def steps(self) -> list[int]:
        """Numbers of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def damage(self, step: int) -> str | None:
        """What is wrong with the files of a checkpoint, in a few words; None where they are whole.

        Found out once. One without checksums is read on trial.
        """
        if step not in self.steps():
            return "it is missing"
        if step not in self._damage:
            self._damage[step] = self._find_damage(step)
        return self._damage[step]

    def save(self, step: int, state: PyTree, record: dict, *, best: int | None = None) -> None:
        """Writes a checkpoint and deletes those no longer kept.

        Args:
            step: its number.
            state: a pytree of arrays.
            record: JSON data.
            best: number of the checkpoint to keep beside the newest.

        Raises:
            CheckpointError: it cannot be written; earlier ones are intact.
        """
        self._policy.best = best
        arrays = jax.tree.map(_stored, state)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays), record=ocp.args.JsonSave(record)
        )
        self._check_room(step, sum(x.nbytes for x in jax.tree.leaves(arrays)))
        self._damage.pop(step, None)
        try:
            with uninterrupted():
                self._manager.save(step, args=items, force=True)
                folder = self._directory / str(step)
                write_json(folder / SUMS, checksums(folder))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {step} cannot be written to {self._directory} ({error}); earlier ones "
                "are intact: make room, then run the same command again to go on from the last."
            ) from error

    def record(self, step: int | None = None) -> dict:
        """The record of a checkpoint, the newest by default.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        step = self._whole(step)
        return self._read(step, record=ocp.args.JsonRestore()).record

    def restore(self, template: PyTree, step: int | None = None) -> PyTree:
        """Restores a state.

        Args:
            template: a state of the same structure, shapes and types; `jax.eval_shape` gives one.
            step: which checkpoint; the newest by default.

        Raises:
            CheckpointError: there is none, it is damaged, or its arrays are not those of the
                template.
        """
        step = self.check(template, step)
        # By the arrays' names: nested dicts and a dict of paths, which states have had, are alike.
        with uninterrupted():
            saved = self._manager.item_metadata(step).state.tree
        empty = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved)
        state = self._read(step, state=ocp.args.StandardRestore(empty)).state
        arrays = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(state)}
        return jax.tree_util.tree_map_with_path(
            lambda path, like: _restored(arrays[path_name(path)], like), template
        )

    def check(self, template: PyTree, step: int | None = None) -> int:
        """The number of a checkpoint whose arrays are those of a template; raises as `restore`."""
        step = self._whole(step)
        with uninterrupted():
            saved = _types(self._manager.item_metadata(step).state)
        wanted = _types(_abstract(template))
        differing = [
            f"{name} is {saved.get(name, 'absent')}, wanted {wanted.get(name, 'none')}"
            for name in sorted(saved.keys() | wanted.keys())
            if saved.get(name) != wanted.get(name)
        ]
        if differing:
            rest = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise CheckpointError(
                f"checkpoint {step} in {self._directory} is of another model or method: "
                f"{'; '.join(differing[:3])}{rest}."
            )
        return step

    def forget_after(self, step: int) -> None:
        """Deletes the checkpoints after one, so that they can be written again."""
        with uninterrupted():
            for later in self.steps():
                if later > step:
                    self._manager.delete(later)
                    self._damage.pop(later, None)

    def close(self) -> None:
        """Waits for writes and frees the folder."""
        with uninterrupted():
            self._manager.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _existing(self, step):
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"{self._directory} holds no checkpoint; train first.")
        if step is not None and step not in steps:
            raise CheckpointError(
                f"{self._directory} holds no checkpoint {step}; there are {steps}."
            )
        return steps[-1] if step is None else step

    def _check_room(self, step, size):
        """Before orbax has begun, since what fails in its threads is told there at length."""
        free = shutil.disk_usage(self._directory).free
        if free < size + ROOM:
            raise CheckpointError(
                f"checkpoint {step} cannot be written to {self._directory} ({free:,} bytes are "
                f"free, and it takes up to {size + ROOM:,}); earlier ones are intact: make room, "
                "then run the same command again to go on from the last."
            )

    def _whole(self, step):
        step = self._existing(step)
        found = self.damage(step)
        if found:
            whole = [other for other in self.steps() if not self.damage(other)]
            left = f"whole are {whole}: choose one of these" if whole else "none there is whole"
            raise CheckpointError(
                f"checkpoint {step} in {self._directory} is damaged: {found}; {left}, restore the "
                "file from a copy, or train again."
            )
        return step

    def _find_damage(self, step):
        folder = self._directory / str(step)
        if (folder / SUMS).exists():
            try:
                return damage(folder, read_json(folder / SUMS))
            except (ValueError, AttributeError, TypeError):
                return f"{SUMS} is not what was written"
        try:
            self._read(step, record=ocp.args.JsonRestore(), state=ocp.args.StandardRestore())
            return None if _types(self._manager.item_metadata(step).state) else "it has no arrays"
        except Exception as error:  # Of orbax or tensorstore, of any kind.
            return f"it cannot be read ({' '.join(str(error).split())[:200]})"

    def _read(self, step, **items):
        with uninterrupted():
            return self._manager.restore(step, args=ocp.args.Composite(**items))


class _Keep:
    """Preservation policy: the newest, the named ones and the best."""

    def __init__(self, named: tuple[int, ...], newest: int):
        self.named, self.newest = named, newest
        self.best: int | None = None

    def should_preserve(self, checkpoints, *, context):
        del context
        newest = {checkpoint.step for checkpoint in checkpoints[-self.newest :]}
        kept = newest | set(self.named) | {self.best}
        return [checkpoint.step in kept for checkpoint in checkpoints]


def _alone() -> ocp.options.MultiprocessingOptions:
    """Orbax without barriers between processes."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"{process}"
    )


def _is_key(x) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _bits(x: Array) -> Array:
    return jax.random.key_data(x) if _is_key(x) else x


def _stored(x: Array) -> np.ndarray:
    """The array on the host, keys as their bits: alike whatever devices it was spread over."""
    return np.asarray(_bits(x))


def _restored(x: np.ndarray, template) -> Array:
    """An array not bound to a device, like a fresh state: so jit compiles nothing anew."""
    x = jax.device_put(x, may_alias=False)
    return jax.random.wrap_key_data(x) if _is_key(template) else x


def _abstract(template: PyTree) -> PyTree:
    """Shapes and types of a state as it is stored."""
    return jax.eval_shape(lambda tree: jax.tree.map(_bits, tree), template)


def _types(tree: PyTree) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        path_name(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }
