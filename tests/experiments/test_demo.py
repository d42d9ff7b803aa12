import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from rich.console import Console

from experiments import demo
from experiments.cli import seeds
from experiments.documents import demo as demo_tables
from experiments.documents.paired import same_epochs
from experiments.program.images import written_images
from experiments.runs.identity import flatten
from experiments.studies.demonstrations import DEMOS, TITLES
from otrw_jax.files import read_json

pytestmark = pytest.mark.usefixtures("rank_promotion")

# Columns: error, many, medium, few; a row a seed.
CE = np.array([[30.0, 95.0, 80.0, 50.0], [40.0, 90.0, 70.0, 40.0]])
DIGITS = DEMOS["digits"]
RESULTS = {
    "ce": CE,
    "continued": np.add(CE, [[-1.0, 0.0, 0.0, 5.0], [-3.0, 0.0, 0.0, 5.0]]),
    "continued_head": CE,
    "cb": np.add(CE, [-5.0, 0.0, 0.0, 10.0]),
    "otrw_paper": np.add(CE, [-10.0, 0.0, 0.0, 10.0]),
    "otrw_released": np.add(CE, [2.0, 0.0, 0.0, 10.0]),
    "otrw_global": np.add(CE, [-10.0, 9.0, 9.0, -0.5]),
    "otrw_global_sampling": CE,
}


def test_the_table_has_means_and_deviations_of_every_recipe():
    console = Console(width=100)
    with console.capture() as captured:
        console.print(demo_tables.table(RESULTS, 2, DIGITS))
    text = captured.get()
    assert "2 subset seeds" in text
    lines = {
        recipe: next(line for line in text.splitlines() if f" {name} " in line)
        for recipe, name in TITLES.items()
    }
    assert len(set(lines.values())) == len(TITLES)
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
        console.print(demo_tables.table({"ce": CE[:1]}, 1, DIGITS))
    text = captured.get()
    assert "1 subset seed (%)" in " ".join(text.split()) and "30.0" in text and "±" not in text
    assert demo_tables.summary({"ce": CE[:1]})["ce"]["few_accuracy"] == {"mean": 50.0}


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
        console.print(demo_tables.table({"ce": np.where([1, 1, 0, 1], CE, np.nan)}, 2, DIGITS))
    text = captured.get()
    assert "medium" not in text and "few" in text and "nan" not in text


@pytest.mark.parametrize("name", DEMOS)
def test_every_demo_has_a_config_for_each_of_its_recipes(name):
    for recipe in DEMOS[name].recipes:
        config = DEMOS[name].config(recipe, "somewhere")
        assert config.recipe == recipe and config.data.name == name
        assert config.data.get("manual_dir", "somewhere") == "somewhere"
    assert DEMOS[name].pictured in DEMOS[name].recipes


def test_second_stages_are_compared_with_their_epochs_of_cross_entropy_seed_by_seed():
    others = {
        name: same_epochs(name, flatten(DIGITS.config(name, "").to_dict())) for name in RESULTS
    }
    console = Console(width=100)
    with console.capture() as captured:
        console.print(demo_tables.differences(RESULTS, others, DIGITS))
    lines = [line for line in captured.get().splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert [(row[0], row[1]) for row in cells] == [
        (TITLES[name], part)
        for name in RESULTS
        for part in {
            "otrw_paper": ["network"],
            "ce": [],
            "continued": [],
            "continued_head": [],
        }.get(name, ["network", "head"])
    ]
    of_paper = next(row for row in cells if row[0] == TITLES["otrw_paper"])
    # 10 less an error each, of which cross-entropy with as many epochs has 1 and 3.
    assert of_paper[2:] == ["-8.0 ± 1.4", "+5.0 ± 0.0", "no difference shown"]


def test_a_small_demo(small_config, tmp_path, monkeypatch, capsys):
    recipes = ("ce", "continued", "continued_head", "otrw_released")
    names = {recipe: TITLES[recipe] for recipe in recipes}
    small = DIGITS._replace(recipes=names, config=lambda recipe, _: small_config(recipe))
    monkeypatch.setitem(DEMOS, "digits", small)
    monkeypatch.setattr(sys, "argv", ["demo"])
    with flagsaver.flagsaver():
        flags.FLAGS(["demo", "--seeds=0", f"--workdir={tmp_path}"])
        demo.main([])
    values = read_json(tmp_path / "demo.json")
    assert values["seeds"] == [0]
    out = capsys.readouterr().out
    for recipe, title in names.items():
        last = read_json(tmp_path / recipe / "seed_0" / "results.json")["last"]
        assert values[recipe] == {column: {"mean": last[column]} for column in demo_tables.COLUMNS}
        line = next(line for line in out.splitlines() if f"│ {title} " in line)
        assert f" {last['error']:.1f} " in line
    # One seed has no deviation, and shows no difference from either.
    assert "±" not in out and out.count("no difference shown") == 2
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


def test_a_small_demo_of_a_folder_of_images(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    monkeypatch.setattr(written_images, "TRAIN", 8)
    monkeypatch.setattr(written_images, "TEST", 2)

    whole = DEMOS["image_folder"]

    def config(recipe, place):
        made = whole.config(recipe, place)
        made.data.update({"imbalance_factor": 4.0, "meta_per_class": 2})
        made.encoder.side = 32
        for section in (made.stage1, *made.stage2.values()):
            section.update({"epochs": 2, "batch_size": 8})
        return made

    recipes = {name: TITLES[name] for name in ("ce", "continued", "continued_head", "cb")}
    small = whole._replace(recipes=recipes, config=config, pictured="cb")
    monkeypatch.setitem(DEMOS, "image_folder", small)
    monkeypatch.setattr(sys, "argv", ["demo"])
    with flagsaver.flagsaver():
        flags.FLAGS(["demo", "--data=image_folder", "--seeds=0", f"--workdir={tmp_path}"])
        demo.main([])
    out = capsys.readouterr().out
    images, run = tmp_path / "images", tmp_path / "cb" / "seed_0"
    assert f"{images}: JPEGs of digits" in out
    assert len(list(images.glob("t*/*/*.jpg"))) == 10 * (8 + 2)
    assert f"│ {TITLES['cb']} " in out
    assert f"picture: {run / 'confusion_matrices.png'}" in out
    for digit in range(10):
        assert f"{images / 'test' / str(digit) / '000.jpg'}: " in out
    assert f"python -m experiments.predict --workdir={run} {images / 'test'}" in out
