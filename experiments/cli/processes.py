"""Several processes, on one machine or many, that train one run together by `jax.distributed`."""

import os
from typing import Any

import jax
from absl import flags

COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "host:port of the first process; auto where jax knows a cluster by itself.",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process.", lower_bound=0)
HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds", 100, "A process silent for so long is taken for dead, and all end."
)


def join() -> None:
    """Joins the other processes, where there are any; before anything is computed.

    Given by the three flags; found out by jax where srun has started several tasks, on a TPU pod,
    and with `--coordinator=auto`.

    Raises:
        ValueError: one flag is given without the others.
        RuntimeError: the others cannot be reached.
    """
    coordinator, count, number = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    given = coordinator, count, number
    if given == (None, None, None):
        if _srun_tasks() > 1 or _tpu_hosts() > 1:
            _initialize()
        return
    if given == ("auto", None, None):
        _initialize()
        return
    if coordinator in (None, "auto") or count is None or number is None:
        raise ValueError(
            "several processes need all of --coordinator=host:port, --num_processes and "
            "--process_id; or --coordinator=auto alone."
        )
    if number >= count:
        raise ValueError(
            f"--process_id={number} of {count} processes; they are numbered from 0 to {count - 1}."
        )
    _initialize(*given)


def _initialize(*given: Any) -> None:
    start: Any = jax.distributed.initialize
    start(*given, heartbeat_timeout_seconds=HEARTBEAT.value)


def _srun_tasks() -> int:
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))


def _tpu_hosts() -> int:
    return len(os.environ.get("TPU_WORKER_HOSTNAMES", "").split(","))
