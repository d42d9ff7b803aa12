"""A program is made of a config, counts and shapes; of the data it reads what a stage reads."""

import jax
import numpy as np
import pytest

from experiments.program.compiled import Program
from experiments.program.experiment import Experiment
from experiments.recipes import RECIPES

READ = {"ncm", "oltr", "otrw_global", "otrw_global_sampling"}
"""Recipes whose second stage reads the training set's inputs, or features kept of them."""


def program_of(config, counts):
    experiment = Experiment(config)
    return Program(experiment.config, counts, (8, 8, 1), "uint8", experiment.source.preprocessing)


def test_what_is_compiled_is_kept_by_the_counts_that_it_depends_on(experiment):
    """Another program for other counts, whose logits are adjusted by them."""
    one, other = (experiment.prepare(seed) for seed in (0, 1))
    program = experiment.program(one)
    assert experiment.program(other) is program and program.loops(0) is program.loops(0)
    counts = one.split.counts + 1
    changed = one._replace(split=one.split._replace(counts=counts))
    assert experiment.program(changed) is not program
    assert experiment.program(one) is program
    assert experiment.first_time(experiment.program(changed).loops(0)[0])


def test_a_program_needs_no_data(small_config):
    program = program_of(small_config("crt"), (9, 8, 7, 6, 5, 4, 3, 2, 2, 2))
    head = program.fresh_head(jax.random.key(3))
    variables = program.initial_variables(0)
    assert jax.tree.map(np.shape, head) == jax.tree.map(np.shape, variables["params"]["head"])
    assert program.ends == (3, 5)


def test_the_network_starts_as_it_does_on_the_examples_themselves(experiment):
    prepared = experiment.prepare(0)
    program = experiment.program(prepared)
    inputs = program.preprocessing.evaluate(prepared.data.raw.inputs[:2])
    wanted = program.model.init(jax.random.key(0), inputs)
    jax.tree.map(np.testing.assert_array_equal, program.initial_variables(0), wanted)


@pytest.mark.parametrize("recipe", [name for name, r in RECIPES.items() if r.second is not None])
def test_a_recipe_reads_the_inputs_or_does_not(small_config, recipe):
    program = program_of(small_config(recipe), (9, 8, 7, 6, 5, 4, 3, 2, 2, 2))
    reads = [stage.method.reads_inputs for stage in program.stages]
    assert reads == [False, recipe in READ]


@pytest.mark.parametrize(("recipe", "shape"), [("cb", None), ("ncm", (64,)), ("oltr", (8, 8, 1))])
def test_inputs_are_prepared_where_a_stage_reads_them(small_config, recipe, shape):
    experiment = Experiment(small_config(recipe))
    prepared = experiment.prepare(0)
    assert prepared.data.view.train.inputs is None
    program = experiment.program(prepared)
    stage, variables = program.stages[1], program.initial_variables(0)
    seen = program.seen(stage, 0, prepared, variables)
    inputs = seen.data.view.train.inputs
    assert (None if inputs is None else inputs.shape[1:]) == shape
    assert prepared.data.view.train.inputs is None
    if recipe == "oltr":
        wanted = program.preprocessing.evaluate(prepared.data.raw.inputs)
        np.testing.assert_array_equal(inputs, wanted)


def test_a_dynamic_measure_reads_the_inputs(small_config):
    config = small_config("otrw_paper")
    config.stage2.otrw_paper.choices.update({"measure": "dynamic", "meta_features": "refresh"})
    program = program_of(config, (9, 8, 7, 6, 5, 4, 3, 2, 2, 2))
    assert program.stages[1].method.reads_inputs
