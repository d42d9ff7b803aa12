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
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
            save_interval_steps=0 if read_only else 1,
        )
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=options,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "record": ocp.JsonCheckpointHandler(),
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
            state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
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
            template: a state of the same structure, shapes and types.
            step: which checkpoint; the newest by default.

        Raises:
            CheckpointError: there is none, or its arrays are not those of the template.
        """
        step = self._existing(step)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        self._check(abstract, step)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        return jax.tree.map(_uncommitted, self._manager.restore(step, args=items).state)

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


def _uncommitted(x: Array) -> Array:
    """A copy that is not bound to its device, like a fresh state: so jit compiles nothing anew."""
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _uncommitted(jax.random.key_data(x))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    return jnp.array(np.asarray(x))


def _types(tree: PyTree) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        "/".join(_key(part) for part in path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def _key(part) -> str:
    for name in ("key", "name", "idx"):
        if hasattr(part, name):
            return str(getattr(part, name))
    return str(part)


def read_json(path: str | pathlib.Path) -> Any:
    """Reads a JSON file of a run directory."""
    return json.loads(pathlib.Path(path).read_text())


def write_json(path: str | pathlib.Path, value: Any) -> None:
    """Writes a JSON file beside and renames it, so that readers never see half of it."""
    path = pathlib.Path(path)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(value, indent=2) + "\n")
    draft.replace(path)
