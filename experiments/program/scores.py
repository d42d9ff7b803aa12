"""What a stage's network achieves on the test set and the held-out part, in percent."""

import math

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from experiments.program.compiled import Program
from experiments.program.prepared import Prepared
from otrw_jax.metrics import summarise
from otrw_jax.training.evaluation import Statistics
from otrw_jax.training.seeds import stack
from otrw_jax.training.stages import Stage

GROUPS = ("many_accuracy", "medium_accuracy", "few_accuracy")
Scores = dict[str, dict[str, float]]
"""Metrics by part, `test` and, where there is one, `held_out`."""


def scores(program: Program, stage: Stage, variables: PyTree, prepared: Prepared) -> Scores:
    """All metrics by part; a shot group that no class belongs to has no entry.

    Args:
        program: that the stage is of.
        stage: that the network is of.
        variables: the network's.
        prepared: the data, as they are or as the stage has `seen` them.
    """
    found = statistics(program, stage, variables, prepared)
    shots = program.config.shots
    return {name: summary(part, prepared, shots) for name, part in found.items()}


def statistics(
    program: Program, stage: Stage, variables: PyTree, prepared: Prepared
) -> dict[str, Statistics]:
    """What `scores` sums up, by the same names."""
    parts = {"test": prepared.test, "held_out": prepared.held_out}
    evaluate = program.evaluator(stage, prepared.kept, False)
    return {
        name: evaluate(variables, examples)
        for name, examples in parts.items()
        if examples is not None
    }


def scores_together(
    program: Program, stage: Stage, variables: list[PyTree], prepared: list[Prepared]
) -> list[Scores]:
    """The scores of several seeds, in one program."""
    stacked, first = stack(variables), prepared[0]
    evaluate = program.evaluator(stage, first.kept, True)
    shared = not first.kept and all(one.dataset is first.dataset for one in prepared)
    test = first.test if shared else stack([one.test for one in prepared])
    found = {"test": evaluate(stacked, test)}
    if first.held_out is not None:
        found["held_out"] = evaluate(stacked, stack([one.held_out for one in prepared]))

    def at(number: int, part: Statistics) -> Statistics:
        return jax.tree.map(lambda x: x[number], part)

    shots = program.config.shots
    return [
        {name: summary(at(number, part), one, shots) for name, part in found.items()}
        for number, one in enumerate(prepared)
    ]


def summary(statistics: Statistics, prepared: Prepared, shots: ConfigDict) -> dict[str, float]:
    """The metrics of statistics; without those of a shot group without classes.

    Args:
        statistics: of a part.
        prepared: whose split has the classes' counts.
        shots: `shots` of the config, the bounds of the groups.
    """
    found = summarise(*statistics, prepared.split.counts, shots.many, shots.few)
    return {k: v for k, v in found.items() if k not in GROUPS or not math.isnan(v)}
