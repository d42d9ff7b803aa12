import jax
import numpy as np
import pytest

from experiments.experiment import Experiment
from experiments.recipes import RECIPES
from experiments.run import train
from otrw_jax.checkpoints import read_json

pytestmark = pytest.mark.usefixtures("cached", "rank_promotion")

NEED_WEIGHTS = [recipe for recipe in RECIPES if recipe.startswith("otrw")]


@pytest.fixture(scope="module")
def runs(small_config, experiment, whole_run, final_state, tmp_path_factory):
    """From a recipe to its experiment, its directory, its results and its last state."""
    folder = tmp_path_factory.mktemp("recipes")
    done = {"otrw_paper": (experiment, *whole_run, final_state(experiment, whole_run[0]))}

    def run(recipe):
        if recipe not in done:
            experiment = Experiment(small_config(recipe))
            source = "" if recipe == "ce" else run("ce")[1]
            results = train(experiment, folder / recipe, 0, 0, source)
            state = final_state(experiment, folder / recipe)
            done[recipe] = experiment, folder / recipe, results, state
        return done[recipe]

    return run


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs_to_its_end(runs, recipe):
    experiment, workdir, results, state = runs(recipe)
    assert results["last"]["epoch"] == (3 if recipe == "ce" else 5)
    assert read_json(workdir / "run.json")["recipe"] == recipe
    for result in results.values():
        assert all(np.isfinite(value) for value in result.values())
        # Guessing gives 90 %.
        assert 5 < result["error"] < 50
    for leaf in jax.tree.leaves(state):
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            assert np.isfinite(np.asarray(leaf)).all()
    counts = experiment.prepare(0).split.counts
    size = experiment.config.stage1.batch_size
    epochs = 3
    if recipe != "ce":
        size, epochs = experiment.config.stage2[recipe].batch_size, 2
    assert state.step == epochs * (counts.sum() // size)


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe != "ce"])
def test_the_second_stage_begins_with_the_first_and_trains_what_it_should(runs, recipe):
    first, second = (runs(name)[3].variables["params"] for name in ("ce", recipe))
    differ = jax.tree.map(lambda a, b: bool((a != b).any()), first, second)
    moved = {part: any(jax.tree.leaves(differ[part])) for part in ("backbone", "head")}
    # The paper's text trains the whole network, the others the last layer alone.
    assert moved == {"backbone": recipe == "otrw_paper", "head": True}


@pytest.mark.parametrize("recipe", NEED_WEIGHTS)
def test_the_weights_of_the_examples(runs, recipe):
    experiment, _, _, state = runs(recipe)
    prepared = experiment.prepare(0)
    counts = prepared.split.counts
    labels = np.asarray(prepared.data.raw.labels)
    values, initial = np.asarray(state.weights.values), np.asarray(state.weights.initial)
    assert values.shape == initial.shape == labels.shape
    assert (values != initial).any()
    if recipe == "otrw_released":
        class_weights = (1 - 0.9999) / (1 - 0.9999**counts)
        expected = (10 * class_weights / class_weights.sum())[labels]
        np.testing.assert_allclose(initial, expected, rtol=1e-3)
    else:
        np.testing.assert_array_equal(initial, 1.0)
    if recipe == "otrw_paper":
        # Mass moves inside batches, which are of the training set; none is lost.
        assert values.min() >= 0
        assert values.mean() == pytest.approx(1.0, rel=1e-4)
    if recipe.startswith("otrw_global"):
        assert values.mean() == pytest.approx(1.0, rel=1e-5)
        mass = np.bincount(labels, values)
        assert mass.max() / mass.min() < 2 < counts.max() / counts.min()
