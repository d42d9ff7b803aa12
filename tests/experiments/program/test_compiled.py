"""A program is made of a config, counts and shapes; of the data it reads what a stage reads."""

import operator

import jax
import numpy as np
import pytest

from experiments.program import compiled
from experiments.program.compiled import Program
from experiments.program.experiment import Experiment
from experiments.program.prepared import Recent
from experiments.recipes import RECIPES
from otrw_jax.methods.base import Examples, TrainingData

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


def test_recipes_on_one_network_share_the_features_they_see(small_config, monkeypatch):
    def seen(recipe, seed=0, scale=1.0, backbone=1.0, subset=0, copies=2, **data):
        config = small_config(recipe)
        config.stage2[recipe].feature_copies = copies
        config.data.update(data)
        if recipe == "otrw_released":  # On a backbone that stays as it is.
            config.stage2[recipe].choices.update(
                {"trainable": "head/.*", "batch_norm": False, "meta_batch_norm": False}
                | {"measure": "prototype"}
            )
        experiment = Experiment(config)
        prepared = experiment.prepare(subset)
        program = experiment.program(prepared)
        variables = program.initial_variables(0)
        params = variables["params"] | {
            "backbone": jax.tree.map(lambda x: x * backbone, variables["params"]["backbone"]),
            "head": jax.tree.map(lambda x: x * scale, variables["params"]["head"]),
        }
        return program.seen(program.stages[-1], seed, prepared, variables | {"params": params})

    monkeypatch.setattr(compiled, "RECENT", Recent(2**30))
    first, other = seen("crt"), seen("lws", scale=2.0)
    assert first.data.raw.inputs.shape[1:] == (2, 64) and first.kept
    assert first.dataset is not other.dataset
    jax.tree.map(np.testing.assert_array_equal, first.data, other.data)
    assert all(map(operator.is_, jax.tree.leaves(first.data), jax.tree.leaves(other.data)))
    assert other.test is first.test and other.held_out is first.held_out
    assert seen("ncm").data.view.train.inputs.shape[1:] == (64,)
    assert first.data.raw_meta is None and seen("otrw_released").data.raw_meta is not None
    changes = {"seed": 1}, {"backbone": 2.0}, {"subset": 1}, {"copies": 3}, {"padding": "zero"}
    for changed in changes:
        assert seen("crt", **changed).data.raw.inputs is not first.data.raw.inputs


def test_no_more_than_so_many_bytes_are_kept():
    recent, made = Recent(2 * 8 * 4), []

    def get(choice):
        def compute():
            made.append(choice)
            return np.zeros(8, np.float32)

        recent.get([choice], np.zeros(1), compute)

    for choice in (0, 1, 0, 2, 1, 2, 0):
        get(choice)
    assert made == [0, 1, 2, 0]


def test_what_a_tree_has_beside_its_arrays_counts():
    recent, labels = Recent(2**10), Examples(None, np.zeros(3, np.int32))
    for num_classes in (2, 3):
        data = TrainingData(labels, None, num_classes)
        assert recent.get([], data, lambda data=data: np.array(data.num_classes)) == num_classes
    assert recent.get([], (np.ones(1), None), lambda: np.zeros(1)) == 0
    assert recent.get([], (None, np.ones(1)), lambda: np.ones(1)) == 1


def test_a_dynamic_measure_reads_the_inputs(small_config):
    config = small_config("otrw_paper")
    config.stage2.otrw_paper.choices.update({"measure": "dynamic", "meta_features": "refresh"})
    program = program_of(config, (9, 8, 7, 6, 5, 4, 3, 2, 2, 2))
    assert program.stages[1].method.reads_inputs
