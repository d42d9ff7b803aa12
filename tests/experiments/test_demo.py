import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from rich.console import Console

from experiments import demo
from experiments.cli import seeds
from otrw_jax.checkpoints import read_json

pytestmark = pytest.mark.usefixtures("cached", "rank_promotion")

# Columns: error, many, medium, few; a row a seed.
CE = np.array([[30.0, 95.0, 80.0, 50.0], [40.0, 90.0, 70.0, 40.0]])
DIGITS = demo.DEMOS["digits"]
RESULTS = {
    "ce": CE,
    "cb": np.add(CE, [-5.0, 0.0, 0.0, 10.0]),
    "otrw_paper": np.add(CE, [-10.0, 0.0, 0.0, 10.0]),
    "otrw_released": np.add(CE, [2.0, 0.0, 0.0, 10.0]),
    "otrw_global": np.add(CE, [-10.0, 9.0, 9.0, -0.5]),
    "otrw_global_sampling": CE,
}


def test_the_table_has_means_and_deviations_of_every_recipe():
    console = Console(width=100)
    with console.capture() as captured:
        console.print(demo.table(RESULTS, 2, DIGITS))
    text = captured.get()
    assert "2 subset seeds" in text
    lines = {
        recipe: next(line for line in text.splitlines() if f" {name} " in line)
        for recipe, name in demo.RECIPES.items()
    }
    assert len(set(lines.values())) == len(demo.RECIPES)
    # The sample deviation of two numbers is their difference over the root of two.
    cells = [cell.strip() for cell in lines["ce"].strip("│┃ ").split("│")]
    assert cells[1:] == ["35.0 ± 7.1", "92.5 ± 3.5", "75.0 ± 7.1", "45.0 ± 7.1"]
    assert "25.0 ± 7.1" in lines["otrw_paper"]
    heads = next(line for line in text.splitlines() if "recipe" in line and "error" in line)
    positions = [heads.index(name) for name in ("recipe", "error", "many", "medium", "few")]
    assert positions == sorted(positions)


def test_one_seed_has_no_deviation():
    console = Console(width=100)
    with console.capture() as captured:
        console.print(demo.table({"ce": CE[:1]}, 1, DIGITS))
    text = captured.get()
    assert "1 subset seed (%)" in text and "30.0 ± 0.0" in text


def test_the_seeds_given_or_the_demos_own():
    with flagsaver.flagsaver():
        flags.FLAGS(["demo"])
        assert seeds(2) == [0, 1]
        flags.FLAGS(["demo", "--seeds=7,4,7"])
        assert seeds(2) == [7, 4]
        flags.FLAGS(["demo", "--seeds=7,x"])
        with pytest.raises(ValueError, match="--seeds=7,x must be whole numbers"):
            seeds(2)


def test_a_group_without_classes_has_no_column():
    console = Console(width=100)
    with console.capture() as captured:
        console.print(demo.table({"ce": np.where([1, 1, 0, 1], CE, np.nan)}, 2, DIGITS))
    text = captured.get()
    assert "medium" not in text and "few" in text and "nan" not in text


@pytest.mark.parametrize("name", demo.DEMOS)
def test_every_demo_has_a_config_for_each_of_its_recipes(name):
    with flagsaver.flagsaver():
        flags.FLAGS(["demo", "--manual_dir=somewhere"])
        for recipe in demo.DEMOS[name].recipes:
            config = demo.DEMOS[name].config(recipe)
            assert config.recipe == recipe and config.data.name == name
    assert demo.DEMOS[name].pictured in demo.DEMOS[name].recipes


def test_the_verdicts_say_what_the_numbers_say():
    sentences = dict(zip(list(RESULTS)[2:], demo.verdicts(RESULTS, DIGITS), strict=True))
    for recipe, sentence in sentences.items():
        assert sentence.startswith(f"{demo.RECIPES[recipe]}: ")
    assert sentences["otrw_paper"] == (
        "OT, the paper's text: better than cross-entropy overall and on the few-shot classes "
        "(error -10.0, few-shot accuracy +10.0)."
    )
    # More errors; fewer right among the few-shot classes; no difference at all.
    for recipe in ("otrw_released", "otrw_global", "otrw_global_sampling"):
        assert ": NOT better than cross-entropy" in sentences[recipe]
    assert "(error +2.0, few-shot accuracy +10.0)" in sentences["otrw_released"]
    assert "(error -10.0, few-shot accuracy -0.5)" in sentences["otrw_global"]
    assert "(error +0.0, few-shot accuracy +0.0)" in sentences["otrw_global_sampling"]


def test_a_small_demo(small_config, tmp_path, monkeypatch, capsys):
    recipes = ("ce", "otrw_released")
    names = {recipe: demo.RECIPES[recipe] for recipe in recipes}
    small = DIGITS._replace(recipes=names, config=small_config)
    monkeypatch.setitem(demo.DEMOS, "digits", small)
    monkeypatch.setattr(sys, "argv", ["demo"])
    with flagsaver.flagsaver():
        flags.FLAGS(["demo", "--seeds=0", f"--workdir={tmp_path}"])
        demo.main([])
    values = read_json(tmp_path / "demo.json")
    assert values["seeds"] == [0]
    out = capsys.readouterr().out
    for recipe, title in names.items():
        last = read_json(tmp_path / recipe / "seed_0" / "results.json")["last"]
        assert values[recipe] == {
            column: {"mean": last[column], "std": 0.0} for column in demo.COLUMNS
        }
        line = next(line for line in out.splitlines() if f"│ {title} " in line)
        assert f"{last['error']:.1f} ± 0.0" in line
    assert out.count("better than cross-entropy") == 1
    run = tmp_path / "otrw_released" / "seed_0"
    assert f"python -m experiments.evaluate --workdir={run}" in out
    for name in ("confusion_matrices", "convergence", "class_weights", "transport"):
        assert (run / f"{name}.png").is_file()
        assert f"picture: {run / name}.png" in out
    # The first stage is trained once.
    first, second = (
        (tmp_path / recipe / "seed_0" / "metrics.jsonl").read_text().splitlines()
        for recipe in ("ce", "otrw_released")
    )
    assert second[:3] == first
