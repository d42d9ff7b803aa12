"""Checkpoints of a run, by orbax: what is saved, which are kept, and how they are restored."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import Array
from jaxtyping import PyTree


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, is missing, or belongs to another model."""


class Checkpoints:
    """The checkpoints of one run, numbered by the epochs behind them, over all stages.

    Where there are several processes, one may write and all may read; none waits for another.

    Each holds the state of the method and a record: plain JSON with the run's history. They are
    written beside and renamed, so a kill at any moment leaves the last complete one. The newest
    few, the last of each stage and the one marked best are kept.
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
        if not read_only:  # Orbax does not create it where there are several processes.
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
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(jax.tree.map(_stored, state)),
            record=ocp.args.JsonSave(record),
        )
        try:
            self._manager.save(step, args=items, force=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {step} cannot be written to {self._directory} ({error}); earlier ones "
                "are intact: make room, then run the same command again to go on from the last."
            ) from error

    def record(self, step: int | None = None) -> dict:
        """The record of a checkpoint, the newest by default."""
        step = self._existing(step)
        items = ocp.args.Composite(record=ocp.args.JsonRestore())
        return self._manager.restore(step, args=items).record

    def restore(self, template: PyTree, step: int | None = None) -> PyTree:
        """Restores a state.

        Args:
            template: a state of the same structure, shapes and types; `jax.eval_shape` gives one.
            step: which checkpoint; the newest by default.

        Raises:
            CheckpointError: there is none, or its arrays are not those of the template.
        """
        step = self._existing(step)
        abstract = jax.eval_shape(lambda tree: jax.tree.map(_bits, tree), template)
        self._check(abstract, step)
        # By the arrays' names: nested dicts and a dict of paths, which states have had, are alike.
        saved = self._manager.item_metadata(step).state.tree
        empty = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(empty))
        state = self._manager.restore(step, args=items).state
        arrays = {_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(state)}
        return jax.tree_util.tree_map_with_path(
            lambda path, like: _restored(arrays[_name(path)], like), template
        )

    def forget_after(self, step: int) -> None:
        """Deletes the checkpoints after one, so that they can be written again."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def close(self) -> None:
        """Waits for writes and frees the folder."""
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

    def _check(self, abstract, step):
        saved = _types(self._manager.item_metadata(step).state)
        wanted = _types(abstract)
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


class _Keep:
    """Preservation policy: the newest, the named ones and the best."""

    def __init__(self, named: tuple[int, ...], newest: int):
        self.named, self.newest, self.best = named, newest, None

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
    if _is_key(template):
        return jax.random.wrap_key_data(jnp.array(x))
    return jnp.array(x)


def _types(tree: PyTree) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        _name(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def _name(path) -> str:
    return "/".join(_key(part) for part in path)


def _key(part) -> str:
    for name in ("key", "name", "idx"):
        if hasattr(part, name):
            return str(getattr(part, name))
    return str(part)


def read_json(path: str | pathlib.Path) -> Any:
    """Reads a JSON file of a run directory.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is damaged: {error}; restore it, or begin anew in another directory."
        ) from error


def write_json(path: str | pathlib.Path, value: Any) -> None:
    """Writes a JSON file beside and renames it, so that readers never see half of it."""
    path = pathlib.Path(path)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(value, indent=2) + "\n")
    draft.replace(path)
