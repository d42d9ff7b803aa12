import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.program.experiment import Experiment
from experiments.recipes import RECIPES
from experiments.runs.training import train
from otrw_jax import adjust_logits, ot_correction, predict
from otrw_jax.files import read_json
from otrw_jax.methods.base import Batch

pytestmark = pytest.mark.usefixtures("rank_promotion")


def bits(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


NEED_WEIGHTS = [recipe for recipe in RECIPES if recipe.startswith("otrw") and recipe != "otrw_net"]


@pytest.fixture(scope="module")
def runs(small_config, experiment, whole_run, final_state, tmp_path_factory):
    """From a recipe to its experiment, its directory, its results and its last state."""
    folder = tmp_path_factory.mktemp("recipes")
    done = {"otrw_paper": (experiment, *whole_run, final_state(experiment, whole_run[0]))}

    def run(recipe):
        if recipe not in done:
            experiment = Experiment(small_config(recipe))
            shares = RECIPES[recipe].second is not None
            source = run("ce")[1] if shares else ""
            results = train(experiment, folder / recipe, 0, 0, source)
            state = final_state(experiment, folder / recipe)
            done[recipe] = experiment, folder / recipe, results, state
        return done[recipe]

    return run


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs_to_its_end(runs, recipe):
    experiment, workdir, results, state = runs(recipe)
    two = RECIPES[recipe].second is not None
    assert results["last"]["epoch"] == experiment.config.stage1.epochs + (
        experiment.config.stage2[recipe].epochs if two else 0
    )
    assert read_json(workdir / "run.json")["recipe"] == recipe
    for result in results.values():
        assert all(np.isfinite(value) for value in result.values())
        # Guessing gives 90 %.
        assert 5 < result["error"] < 80
    for leaf in jax.tree.leaves(state):
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            assert np.isfinite(np.asarray(leaf)).all()
    counts = experiment.prepare(0).split.counts
    last = experiment.config.stage2[recipe] if two else experiment.config.stage1
    assert state.step == last.epochs * (counts.sum() // last.batch_size)


@pytest.mark.parametrize(
    "recipe", [name for name, recipe in RECIPES.items() if recipe.second is not None]
)
def test_the_second_stage_begins_with_the_first_and_trains_what_it_should(runs, recipe):
    first, second = (runs(name)[3].variables["params"] for name in ("ce", recipe))

    def moved(part):
        return bits(first[part]) != bits(second[part])

    # The paper's texts and two more train the whole network, the others the head or nothing.
    whole = ("otrw_paper", "otrw_net", "oltr", "continued")
    assert moved("backbone") == (recipe in whole)
    assert moved("head") == (recipe not in ("logit_adjustment", "ot_correction"))


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


@pytest.mark.parametrize("recipe", ["logit_adjustment", "ot_correction"])
def test_corrections_are_of_the_first_stages_logits(runs, recipe):
    """What is evaluated is the correction, of the whole test set where it is transductive."""
    first, _, _, state = runs("ce")
    prepared = first.prepare(0)
    program = first.program(prepared)
    inputs = program.preprocessing.evaluate(prepared.test.inputs)
    logits = predict(program.model, state.variables, inputs)
    if recipe == "logit_adjustment":
        logits = adjust_logits(logits, prepared.split.counts)
    else:
        logits = ot_correction(logits)
    wrong = np.argmax(logits, axis=1) != np.asarray(prepared.test.labels)
    found = runs(recipe)[2]["last"]["error"]
    assert found == pytest.approx(float(100 * wrong.mean()), abs=1e-3)
    assert found < runs("ce")[2]["last"]["error"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_types_of_a_state_stay_where_float64_is_the_default(small_config, recipe):
    """With JAX_ENABLE_X64; labels and ids may be of 64 bits too."""

    def types(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

    with jax.enable_x64(True):
        experiment = Experiment(small_config(recipe))
        prepared = experiment.prepare(0)
        program = experiment.program(prepared)
        for index, stage in enumerate(program.stages):
            method = stage.method

            def epoch(state, stage=stage, method=method):
                variables = program.initial_variables(0)
                data = program.data_of(stage, 0, prepared, variables)
                ids = jnp.arange(stage.batch_size)
                inputs, labels = data.raw.inputs[ids], data.raw.labels[ids].astype(jnp.int64)
                if stage.feature_copies:
                    inputs = inputs[:, 0]
                else:
                    inputs = program.preprocessing.evaluate(inputs)
                if method.sampling is not None and method.sampling(state, labels).ndim == 2:
                    inputs, labels, ids = (jnp.repeat(x, 2, 0) for x in (inputs, labels, ids))
                after, metrics = method.step(state, Batch(inputs, labels, ids), data.view.meta)
                if method.refresh is not None:
                    after = method.refresh(after, data.view)
                return after, metrics["loss"][0]

            state = program.template(index, prepared)
            after, loss = jax.eval_shape(epoch, state)
            assert types(after) == types(state)
            wide = {x.dtype for x in jax.tree.leaves((state, loss))} & {jnp.dtype("float64")}
            assert not wide
