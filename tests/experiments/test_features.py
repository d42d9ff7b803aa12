"""Features in files to results: subsets, meta sets, recipes, evaluation, pictures, other files."""

import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import weights
from experiments.cli import run_app
from experiments.configs import features
from experiments.configs.checks.fields import check_config
from experiments.pictures.drawing import draw
from experiments.program.experiment import Experiment
from experiments.program.features import Rows
from experiments.recipes import RECIPES
from experiments.runs.directory import ConfigMismatchError
from experiments.runs.restoring import restore
from experiments.runs.training import Run, train, train_together
from otrw_jax.files import read_json

pytestmark = pytest.mark.usefixtures("rank_promotion")

COUNTS, WIDTH = (24, 12, 6), 5


def write(folder, counts, seed, name):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(3), counts))
    means = 3 * np.random.default_rng(0).normal(size=(3, WIDTH))
    features = means[labels] + rng.normal(size=(len(labels), WIDTH))
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{name}_features.npy", features.astype(np.float16))
    np.save(folder / f"{name}_labels.npy", labels + 1)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A training and a test part, of labels from 1."""
    root = tmp_path_factory.mktemp("features") / "mine"
    write(root, COUNTS, 1, "train")
    return write(root, (8, 8, 8), 2, "test")


@pytest.fixture(scope="module")
def with_all(tmp_path_factory):
    """All four parts."""
    root = tmp_path_factory.mktemp("features") / "all"
    for seed, (name, counts) in enumerate(
        {"train": COUNTS, "test": (8, 8, 8), "meta": (3, 4, 5), "validation": (6, 7, 8)}.items()
    ):
        write(root, counts, seed + 1, name)
    return root


@pytest.fixture
def weigh(monkeypatch):
    """Calls the script as the command line would; returns what it exits with."""

    def run(*arguments):
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            monkeypatch.setattr(sys, "argv", ["weights", *arguments])
            try:
                run_app(weights.main)
            except SystemExit as end:
                return end.code
            finally:
                flags.FLAGS.mark_as_parsed()

    return run


def small(place, recipe="ce", **data):
    config = features.get_config(f"recipe={recipe},folder={place}")
    config.data.meta_per_class = 2
    config.data.update(data)
    for section in (config.stage1, *config.stage2.values()):
        section.update({"epochs": 1, "batch_size": 8})
    return config


def test_rows_are_numbered_through_parts():
    whole = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float16)
    rows, ids = Rows([whole[:4], whole[4:5], whole[5:]]), np.array([8, 0, 4, 4, 5, 3])
    np.testing.assert_array_equal(rows[ids], whole[ids])
    assert rows.shape == (9, 2) and len(rows) == 9 and rows[ids].dtype == np.float16


def parts_of(config, seed=0):
    """The split, and the classes of each of its parts."""
    source = Experiment(config).source
    split = source.split(seed)
    labels = source.dataset.train_labels
    return split, {
        name: np.bincount(labels[getattr(split, name)], minlength=3).tolist()
        for name in ("train", "meta", "held_out")
    }


WHOLE, LESS, NO = [24, 12, 6], [22, 10, 4], [0] * 3
# What `data` says, the folder, and the examples of each class of the three parts.
MADE = {
    "split off the training part": ({}, "mine", LESS, [2] * 3, NO),
    "and a held-out part": ({"held_out_per_class": 1}, "mine", [21, 9, 3], [2] * 3, [1] * 3),
    "none": ({"meta_per_class": 0}, "mine", WHOLE, NO, NO),
    "long-tailed": ({"imbalance_factor": 4.0}, "mine", [4, 2, 1], [2] * 3, NO),
    "the meta part": ({}, "all", WHOLE, [3, 4, 5], [6, 7, 8]),
    "of validation": ({"meta_from": "validation"}, "all", WHOLE, [2] * 3, [4, 5, 6]),
    "of training all the same": ({"meta_from": "train"}, "all", LESS, [2] * 3, [6, 7, 8]),
}
SAID = {
    "none": "there is no meta set; measure=dynamic draws",
    "the meta part": "the meta set is the meta part",
    "of validation": "2 examples of each class of the validation part; the others are held out",
}


@pytest.mark.parametrize("case", MADE)
def test_where_the_meta_set_comes_from(folder, with_all, case, capsys):
    data, place, *expected = MADE[case]
    split, found = parts_of(small(folder if place == "mine" else with_all, **data))
    assert list(found.values()) == expected
    ids = np.concatenate([split.train, split.meta, split.held_out])
    assert len(ids) == len(set(ids.tolist()))
    said = capsys.readouterr().out
    assert "features: labels are 1, 2, 3; they are numbered 0 to 2" in said
    assert SAID.get(case, "of each class of the train part, which are not trained on") in said


REFUSED = {
    "no folder": ({"folder": ""}, "data.folder is empty; give --config.data.folder=DIR"),
    "a part that is not there": (
        {"meta_from": "meta"},
        "has no such part; take one of train, or 'first'",
    ),
    "too few": ({"meta_per_class": 6}, "class 2 has 6 training examples, too few for 6 meta and 0"),
    "an unknown part": ({"meta_from": "test"}, "data.meta_from is 'test'; it must be"),
    "scaling": ({"scaling": "l2"}, "data.scaling is 'l2'; it must be one of length, none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_asked_in_vain(folder, case):
    data, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        Experiment(small(folder, **data)).source.split(0)


def test_two_held_out_parts_are_refused(with_all):
    with pytest.raises(ValueError, match="and the validation part is what checkpoints are chosen"):
        Experiment(small(with_all, held_out_per_class=1))
    with pytest.raises(ValueError, match="class 0 has 6 examples in the validation part, too few"):
        small_one = small(with_all, meta_from="validation", meta_per_class=7)
        Experiment(small_one).source.split(0)


def test_a_recipe_of_two_branches_asks_for_a_layer(folder):
    with pytest.raises(ValueError, match=r"model.hidden is \(\), and bbn splits the last layer"):
        check_config(small(folder, "bbn"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_made_on_features(folder, recipe):
    config = small(folder, recipe)
    if RECIPES[recipe].branches > 1:
        config.model.hidden = (4,)
    experiment = Experiment(config)
    prepared = experiment.prepare(0)
    assert prepared.data.raw.inputs.dtype == np.float16
    experiment.program(prepared).check(prepared)


def test_a_dynamic_measure_needs_no_meta_set(folder, tmp_path):
    config = small(folder, "otrw_global", meta_per_class=0)
    with pytest.raises(ValueError, match="needs a meta set"):
        train(Experiment(config), tmp_path / "run", 0, 0)
    config.stage2.otrw_global.choices.update({"measure": "dynamic", "measure_size": 3})
    results = train(Experiment(config), tmp_path / "other", 0, 0)
    assert 0 <= results["last"]["error"] <= 100


def test_runs_on_features_are_evaluated_drawn_and_resumed(folder, tmp_path, weigh):
    config = small(folder, "otrw_released", held_out_per_class=1)
    experiment = Experiment(config)
    runs = [Run(tmp_path / f"seed_{seed}", seed, seed, "") for seed in (0, 1)]
    results = train_together(experiment, runs)
    assert train(experiment, runs[0].workdir, 0, 0) == results[0]
    end = restore(runs[1].workdir)
    assert end.logits(end.prepared.test.inputs).shape == (24, 3)
    assert (
        read_json(runs[0].workdir / "config.json")["stage2"]["otrw_released"]["choices"][
            "label_weight"
        ]
        is None
    )
    for path in draw(runs[0].workdir):
        assert path.exists()
    table = tmp_path / "weights.csv"
    assert weigh(f"--workdir={runs[0].workdir}", f"--table={table}") is None
    lines = table.read_text().splitlines()
    assert lines[0] == "id,label,weight" and len(lines) == 1 + end.prepared.split.counts.sum()
    assert {line.split(",")[1] for line in lines[1:]} == {"1", "2", "3"}


def test_files_that_have_changed_are_refused_and_moved_ones_are_not(folder, tmp_path):
    place = tmp_path / "mine"
    place.mkdir()
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    config = small(folder)
    train(Experiment(config), tmp_path / "run", 0, 0)
    assert restore(tmp_path / "run", data_dir=str(place)).number == 1
    write(place, COUNTS, 9, "train")
    with pytest.raises(ConfigMismatchError, match="holds a run of other data"):
        restore(tmp_path / "run", data_dir=str(place))
    config.data.folder = str(place)
    with pytest.raises(ConfigMismatchError, match="holds a run of other data"):
        train(Experiment(config), tmp_path / "run", 0, 0)


def test_weights_of_files(folder, with_all, tmp_path, capsys, weigh):
    table = tmp_path / "weights.csv"
    assert weigh(f"--folder={folder}", f"--table={table}", "--meta_per_class=2") is None
    rows = np.genfromtxt(table, delimiter=",", names=True)
    assert len(rows) == sum(COUNTS) - 6 and rows["weight"].mean() == pytest.approx(1, abs=1e-4)
    labels = np.load(folder / "train_labels.npy")
    np.testing.assert_array_equal(rows["label"], labels[rows["id"].astype(int)])
    shares = np.bincount(rows["label"].astype(int), rows["weight"])[1:] / len(rows)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)
    said = capsys.readouterr().out
    assert "the meta set is 6 examples of the train part" in said and "36 weights of mean" in said
    parquet = pytest.importorskip("pyarrow.parquet")
    table = tmp_path / "weights.parquet"
    assert weigh(f"--folder={with_all}", f"--table={table}") is None
    assert parquet.read_table(table).column_names == ["id", "label", "weight"]
    assert "12 examples of the meta part" in capsys.readouterr().out


def test_weights_of_neither_or_both(folder, tmp_path, weigh):
    for given in ([], [f"--folder={folder}", f"--workdir={tmp_path}"]):
        said = weigh(*given, f"--table={tmp_path / 'w.csv'}")
        assert said == "ValueError: give one of --folder, of features, and --workdir, of a run."


@pytest.mark.parametrize(
    ("place", "flag", "way"),
    [
        ("workdir", "method=learned", "a run has its own"),
        ("workdir", "seed=0", "a run has its own"),
        ("folder", "checkpoint=stage1", "it goes with --workdir"),
    ],
)
def test_what_would_be_passed_over_is_refused(folder, tmp_path, weigh, place, flag, way):
    table = tmp_path / "w.csv"
    said = weigh(f"--{place}={folder}", f"--table={table}", f"--{flag}")
    assert said == f"ValueError: --{flag}: {way}; leave it out."
    assert not table.exists()
