"""What activations in bfloat16 do to the error and to the step, on real digits."""

import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.benchmarks.timing import Effort
from experiments.configs import digits
from experiments.documents.markdown import number, spread, table
from experiments.program.experiment import Experiment
from experiments.program.scores import scores
from otrw_jax.training.loop import run_stage

TYPES = ("float32", "bfloat16")
EPOCHS, SEEDS = 10, 4


def run(effort: Effort) -> list[dict]:
    """One record a type: test errors of ResNet-8 on the digits over subset seeds."""
    del effort
    records = []
    for name in TYPES:
        config = digits.get_config("recipe=ce")
        config.model = ConfigDict({"name": "resnet_cifar", "depth": 8, "width": 8, "dtype": name})
        config.stage1.epochs = EPOCHS
        experiment = Experiment(config)
        errors, losses, seconds = [], [], []
        for seed in range(SEEDS):
            prepared = experiment.prepare(seed)
            program = experiment.program(prepared)
            (loop,) = program.loops(0)
            key = program.stage_key(seed, 0)
            initial = loop.start(key, program.initial_variables(seed), prepared.data)
            ends, states, found = [], [], []
            metrics: Any
            for _, state, metrics in run_stage(loop, initial, prepared.data, key):
                ends.append(time.perf_counter())
                states, found = [state], [metrics["loss"]]
            seconds.append((ends[-1] - ends[0]) / (EPOCHS - 1))  # The first epoch compiles.
            (state,) = states
            losses += found
            evaluated = scores(program, loop.stage, state.variables, prepared)
            errors.append(evaluated["test"]["error"])
        records.append(
            {
                "section": "precision",
                "dtype": name,
                "errors": errors,
                "losses": losses,
                "seconds": float(np.median(seconds)),
            }
        )
    return records


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    rows = [
        [
            r["dtype"],
            spread(r["errors"], 1),
            spread(r["losses"], 4),
            number(r["seconds"]),
        ]
        for r in records
    ]
    differences = np.subtract(records[1]["errors"], records[0]["errors"])
    return "\n\n".join(
        [
            "### Half precision",
            f"Cross-entropy on long-tailed digits, ResNet-8 of width 8, {EPOCHS} epochs, "
            f"{len(records[0]['errors'])} seeds; activations of the type given, parameters, batch "
            f"statistics, features and losses in float32. Device: {jax.default_backend()}.",
            table(["activations", "test error, %", "training loss", "s an epoch"], rows),
            f"Difference in error, seed by seed: {spread(differences, 1)} points.",
        ]
    )
