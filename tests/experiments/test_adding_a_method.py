"""The example of docs/adding_a_method.md, as it stands there, is trained and resumed."""

import pathlib
import re
import sys
import types

import jax
import numpy as np
import pytest

from experiments.configs import digits
from experiments.program.experiment import Experiment
from experiments.recipes import RECIPES
from experiments.runs.training import train

pytestmark = pytest.mark.usefixtures("rank_promotion")

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "adding_a_method.md"


def test_the_example_is_trained_from_its_file_and_its_line(
    data_dir, tmp_path, monkeypatch, final_state
):
    file, line = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    module = types.ModuleType("hard_classes")
    monkeypatch.setitem(sys.modules, "hard_classes", module)
    exec(file, module.__dict__)
    # The line stands in a dict of recipes.
    added = eval(f"{{{line}}}", {"hard_classes": module})
    assert list(added) == ["hard_classes"]
    monkeypatch.setitem(RECIPES, "hard_classes", added["hard_classes"])

    config = digits.get_config("recipe=hard_classes")
    config.data.data_dir = str(data_dir)
    config.options.hard_classes.decay = 0.9
    config.stage1.epochs = 4
    experiment = Experiment(config)
    results = train(experiment, tmp_path, 0, 0)
    assert results["last"]["epoch"] == 4 and results["last"]["error"] < 60
    state = final_state(experiment, tmp_path)
    means = np.asarray(state.mean_losses)
    assert means.shape == (10,) and (means > 0).all()
    # Rare classes are harder.
    assert means[-3:].mean() > 2 * means[:3].mean()
    assert train(experiment, tmp_path, 0, 0) == results
    assert jax.tree.leaves(state.opt_state)
