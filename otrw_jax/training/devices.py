"""The devices that share a batch, of this process and of others, by `jax.pmap`."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

Rows = TypeVar("Rows", Array, np.ndarray)

AXIS_NAME = "batch"
"""Of the mapped axis: what methods and batch normalisation are given as `axis_name`."""


class Devices(NamedTuple):
    """The devices that share a batch.

    A value that is not spread is the same on all of them; outside of mapped functions it is an
    ordinary array, replicated over the devices of this process.

    Attributes:
        local: those of this process.
        processes: number of processes, each with as many devices.
        process: number of this one.
    """

    local: tuple[jax.Device, ...]
    processes: int = 1
    process: int = 0

    @property
    def total(self) -> int:
        """Number of devices over all processes."""
        return len(self.local) * self.processes

    @property
    def axis_name(self) -> str | None:
        """Name of the mapped axis, or None where there is one device and nothing is mapped."""
        return AXIS_NAME if self.total > 1 else None

    def compile(
        self,
        function: Callable,
        spread: tuple[int, ...],
        arguments: int,
        donate_argnums: tuple[int, ...] = (),
    ) -> Callable:
        """Compiles a function for every device, by `jax.jit` where there is one.

        Args:
            function: its result is the same on every device.
            spread: numbers of the arguments that `share` has made.
            arguments: number of all arguments.
            donate_argnums: arguments whose buffers are given up.
        """
        if self.total == 1:
            return jax.jit(function, donate_argnums=donate_argnums)
        return jax.pmap(
            function,
            AXIS_NAME,
            in_axes=tuple(0 if number in spread else None for number in range(arguments)),
            out_axes=None,
            donate_argnums=donate_argnums,
            devices=self.local if self.processes == 1 else None,
        )

    def share(self, x: Array, axis: int = 0) -> Array:
        """Splits an axis over all devices: `[..., n, ...]` to `[local, ..., n / total, ...]`.

        Where there is one device, returns its argument.
        """
        if self.total == 1:
            return x
        return self.share_own(self.own(x, axis), axis)

    def own(self, x: Rows, axis: int = 0) -> Rows:
        """The rows of this process along an axis: `[..., n, ...]` to `[..., n / processes, ...]`.

        Args:
            x: of JAX or of NumPy, and so is the result.
            axis: which is split.
        """
        size = x.shape[axis] // self.processes
        first = self.process * size
        return x[(slice(None),) * axis + (slice(first, first + size),)]

    def share_own(self, x: Array | np.ndarray, axis: int = 0) -> Array:
        """Splits an axis of this process's own rows over its devices, as `share` does of all.

        Where there is one device, puts them there.
        """
        if self.total == 1:
            return jax.device_put(x)
        count = len(self.local)
        shape = (*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])
        parts = (np if isinstance(x, np.ndarray) else jnp).moveaxis(x.reshape(shape), axis, 0)
        return jax.device_put(parts, self._placed(AXIS_NAME))

    def replicate(self, tree: PyTree) -> PyTree:
        """Puts arrays on all devices of this process; where there is one, leaves them there."""
        if self.total == 1:
            return tree
        return jax.device_put(tree, self._placed())

    def _placed(self, *axes: str) -> NamedSharding:
        """An axis split over the devices of this process; without, all of it on each."""
        return NamedSharding(Mesh(np.array(self.local), (AXIS_NAME,)), PartitionSpec(*axes))


def pick_devices(count: int = 1) -> Devices:
    """Chooses the devices that share a batch; where there are several processes, all of them.

    Args:
        count: how many of this process; 0 for all.

    Raises:
        ValueError: there are not so many, or processes have different numbers of them.
    """
    here = jax.local_devices()
    if count < 0 or count > len(here):
        raise ValueError(
            f"devices is {count}; there are {len(here)} {here[0].platform} devices: take 1 to "
            f"{len(here)}, or 0 for all."
        )
    if jax.process_count() > 1:
        if jax.device_count() != len(here) * jax.process_count():
            raise ValueError(
                f"this process has {len(here)} devices, and all {jax.process_count()} have "
                f"{jax.device_count()} together; give each of them as many."
            )
        return Devices(tuple(here), jax.process_count(), jax.process_index())
    return Devices(tuple(here[: count or len(here)]))


def is_first_process() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Waits until every process is at this point; nothing where there is one."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def first_alone(function: Callable[[], Any]) -> Any:
    """Calls a function in the first process, then in the others, which find what it has left."""
    result = function() if is_first_process() else None
    wait_for_all("first process is done")
    return result if is_first_process() else function()


def from_first(value: int) -> int:
    """The number that the first process has, in every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
