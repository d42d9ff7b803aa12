"""The weights that a run has learned are found behind every wrapper."""

import numpy as np
import pytest

from experiments.pictures.drawing import class_weights_of
from experiments.pictures.plans import has_plan, transport_of_run
from experiments.program.experiment import Experiment
from experiments.runs.learned_weights import export_weights, learned_weights
from experiments.runs.restoring import restore
from experiments.runs.training import train


def trained(small_config, tmp_path, recipe, ema):
    config = small_config(recipe)
    section = config.stage2.get(recipe, config.stage1)
    config.stage1.epochs = section.epochs = 1
    section.levers.ema = ema
    train(Experiment(config), tmp_path / "run", 0, 0)
    return restore(tmp_path / "run")


@pytest.mark.parametrize(
    ("recipe", "ema"),
    [("hu", 0.0), ("hu", 0.5), ("otrw_net", 0.5), ("otrw_paper", 0.5), ("otrw_global", 0.5)],
)
def test_learned_weights_with_and_without_a_moving_average(small_config, tmp_path, recipe, ema):
    end = trained(small_config, tmp_path, recipe, ema)
    weights = learned_weights(end)
    assert weights.shape == end.prepared.split.train.shape
    assert np.isfinite(weights).all() and (weights >= 0).all() and weights.std() > 0
    counts, means = class_weights_of(end, weights)
    assert means[recipe].shape == counts.shape
    if has_plan(end):
        ((cost, *plans, learned),) = transport_of_run(end, weights)[0].values()
        assert cost.shape == (len(weights), 10) and np.isfinite(cost).all()
        for plan, marginal in zip(plans, (1 / len(weights), learned), strict=True):
            np.testing.assert_allclose(plan.sum(axis=1), marginal, rtol=0.1, atol=1e-5)
    export_weights(tmp_path / "weights.csv", end)
    assert len((tmp_path / "weights.csv").read_text().splitlines()) == 1 + len(weights)


@pytest.mark.parametrize("recipe", ["mwn", "cb"])
def test_recipes_that_keep_no_weight_of_an_example_say_so(small_config, tmp_path, recipe):
    end = trained(small_config, tmp_path, recipe, 0.0)
    assert learned_weights(end) is None
    with pytest.raises(ValueError, match=f"of {recipe} learns no weights; choose hu, or"):
        export_weights(tmp_path / "weights.csv", end)
    assert not (tmp_path / "weights.csv").exists()
