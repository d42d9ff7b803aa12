"""The loop over a method, on devices and over seeds, with its evaluation.

That over inputs on the disk is in `otrw_jax.training.streaming`.

Checkpoints are in `otrw_jax.training.checkpoints`, which imports orbax.
"""

from otrw_jax.training.devices import Devices, pick_devices
from otrw_jax.training.evaluation import Statistics, make_evaluator
from otrw_jax.training.features import given_features, make_keeper, make_reader, pick_copy
from otrw_jax.training.fitting.default_stages import two_stages
from otrw_jax.training.fitting.fit import fit
from otrw_jax.training.fitting.fitted import Fitted
from otrw_jax.training.loop import Loop, TrainingDivergedError, make_loop, run_stage
from otrw_jax.training.seeds import stack, unstack
from otrw_jax.training.stages import DeviceData, Stage, check_batch

__all__ = [
    "DeviceData",
    "Devices",
    "Fitted",
    "Loop",
    "Stage",
    "Statistics",
    "TrainingDivergedError",
    "check_batch",
    "fit",
    "given_features",
    "make_evaluator",
    "make_keeper",
    "make_loop",
    "make_reader",
    "pick_copy",
    "pick_devices",
    "run_stage",
    "stack",
    "two_stages",
    "unstack",
]
