"""How a run is laid out: steps in a call of the device, and seeds trained together.

XLA's CPU backend runs convolutions inside a loop, and under `vmap`, far more slowly than outside.
"""

import jax
from ml_collections import ConfigDict

from experiments.configs.kinds import is_streamed
from otrw_jax.training.devices import Devices


def in_a_loop(config: ConfigDict) -> bool:
    """Whether many steps go into one call, and many seeds into one program."""
    return config.model.name == "mlp" or jax.default_backend() != "cpu"


def steps_per_call(config: ConfigDict) -> int:
    """Steps that a call of the device runs; 0 for a whole epoch."""
    if config.steps_per_call is None and is_streamed(config):
        return 1
    if config.steps_per_call is None:
        return 0 if in_a_loop(config) else 1
    return config.steps_per_call


def seeds_at_once(config: ConfigDict, devices: Devices, count: int) -> int:
    """How many of so many seeds are trained together."""
    if devices.total > 1 or is_streamed(config):
        return 1
    if config.seeds_at_once is None:
        return count if in_a_loop(config) else 1
    return config.seeds_at_once or count
