"""A made set in ImageNet-LT's form: from lists, odd files and a stage-1 file to every result."""

import json
import shutil
import zipfile

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from jax import export as jax_export

from experiments import reproduce
from experiments.configs import large_sets
from experiments.configs.checks.fields import check_config
from experiments.configs.kinds import IMAGE_FOLDERS, LISTED
from experiments.configs.overrides import check_overrides
from experiments.documents.results import document
from experiments.program.experiment import Experiment
from experiments.program.images import image_folder
from experiments.program.images.image_folder import FileEncoder
from experiments.runs.learned_weights import learned_weights
from experiments.runs.predictions import predictions, write_classifier
from experiments.runs.restoring import restore
from experiments.runs.training import train
from experiments.studies.records import read
from experiments.studies.rows import row_config
from experiments.studies.tables import TABLES
from otrw_jax.data.builders.long_tailed import LONG_TAILED
from otrw_jax.data.builders.manual import SourceError
from otrw_jax.models import image_encoder
from otrw_jax.models.image_encoder import ImageEncoder
from tests.data.builders.image_files import cut_off
from tests.data.builders.long_tailed_files import made_set
from tests.models.weights import made
from tests.models.weights.test_resnet import decoupled, in_pth

pytestmark = pytest.mark.usefixtures("rank_promotion")

COUNTS = tuple(max(round(12 * 0.93**c), 1) for c in range(40))
PARTS = {"train": sum(COUNTS) - 2, "validation": 160, "test": 80}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images of 40 classes, one file missing and one cut off, a stage-1 file, a data folder."""
    root = tmp_path_factory.mktemp("large")
    rows = made_set(root / "images", COUNTS, validation=4)
    gone, cut = [path for path, label in rows["train"] if label == 0][:2]
    (root / "images" / gone).unlink()
    cut_off(root / "images" / cut)
    (root / "stage1.pth").write_bytes(in_pth(made.resnet(50), decoupled))
    return root


def small(place, recipe="otrw_paper", data="data", **fields):
    config = large_sets.get_config(f"recipe={recipe},folder={place / 'images'}")
    config.data.update({"data_dir": str(place / data), "meta_per_class": 2, "max_excluded": 2})
    config.encoder.update({"weights": str(place / "stage1.pth"), "resize": 36, "side": 32})
    for section in (config.stage1, *config.stage2.values()):
        section.update({"epochs": 2, "batch_size": 32})
    config.update_from_flattened_dict(fields)
    check_config(config)
    return config


@pytest.fixture(scope="module")
def run(place):
    """The directory and results of both stages of the paper's method."""
    return place / "run", train(Experiment(small(place)), place / "run", 0, 0)


def kept(place, data="data"):
    (folder,) = (path for path in (place / data / "encoded").iterdir() if path.is_dir())
    return {path.stem: path.read_bytes() for path in folder.iterdir()}


def test_both_stages_run_on_the_features_of_a_stage_1_file(place, run, capsys):
    _, results = run
    assert 0 <= results["last"]["error"] <= 100 and results["best_held_out"] is not None
    source = Experiment(small(place)).source
    assert {p: len(paths) for p, paths in source.paths.items()} == PARTS
    split = source.split(0)
    assert split.counts.tolist() == [COUNTS[0] - 2, *COUNTS[1:]]
    assert (len(split.meta), len(split.held_out)) == (80, 80)
    assert source.dataset.test_inputs.shape == (80, 32 * made.WIDTH)
    assert source.dataset.test_inputs.dtype == np.float16
    out = capsys.readouterr().out
    assert "the lists are not those of ImageNet-LT as published" in out
    assert "files left out: 2 (" in out and "is missing" in out and "is damaged or cut off" in out
    assert "the meta set is 2 examples of each class of the validation part" in out
    assert len(list((place / "data" / "encoded").glob("*/*.npy"))) == 3


def test_what_a_run_is_good_for_afterwards(place, run, tmp_path):
    restored = restore(run[0])
    logits = restored.logits(restored.prepared.test.inputs)
    assert logits.shape == (80, 40)
    weights = learned_weights(restored)
    assert weights.shape == (PARTS["train"],) and (weights >= 0).all()
    files = [str(path) for path in restored.source.paths["test"][:3]]
    made_of = predictions(restored, files)
    names = restored.source.dataset.class_names
    assert names[0] == "n00000400"  # Of the lists; sorted, it would be the last.
    # Features that are kept have eleven bits, those of a prediction all.
    chances = np.asarray(jax.nn.softmax(logits, axis=-1))
    for at, row in enumerate(made_of.found):
        assert row.file == files[at]
        np.testing.assert_allclose(row.probability, chances[at, names.index(row.name)], atol=1e-3)
    about = write_classifier(tmp_path / "classifier.zip", restored)
    assert (about["side"], about["resize"], len(about["classes"])) == (32, 36, 40)
    with zipfile.ZipFile(tmp_path / "classifier.zip") as file:
        assert json.loads(file.read("about.json"))["classes"] == list(names)
        classify = jax_export.deserialize(bytearray(file.read("classify"))).call
    pixels = image_folder.read_middle(files[0], 36, 32)[None]
    found = float(np.asarray(classify(pixels)).max())
    np.testing.assert_allclose(found, made_of.found[0].probability, atol=1e-4)


def test_a_kill_in_the_midst_of_the_extraction_loses_no_bit(place, run, monkeypatch, capsys):
    monkeypatch.setattr(image_folder, "READ", 32)
    monkeypatch.setattr(image_encoder, "BATCH", 16)
    given, calls = ImageEncoder.__call__, []

    def killed(self, images):
        calls.append(len(images))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return given(self, images)

    def extracted(data):
        return Experiment(small(place, data=data)).source

    extracted("whole")
    monkeypatch.setattr(ImageEncoder, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        extracted("resumed")
    assert list(kept(place, "resumed")) == ["train.npy"]  # It is begun.
    capsys.readouterr()
    extracted("resumed")
    assert "train.npy: 80 of " in capsys.readouterr().out
    assert kept(place, "resumed") == kept(place, "whole")
    assert sum(calls) == sum(PARTS.values()) + 32 + 16


def test_over_devices_the_features_are_the_same(place, run, monkeypatch):
    monkeypatch.setattr(image_encoder, "BATCH", 16)
    paths = sorted((place / "images" / "val").glob("*/*"))[:37]
    config = small(place).encoder
    one, four = (FileEncoder(config, jax.devices()[:count]) for count in (1, 4))
    assert (one.network.batch, four.network.batch) == (16, 64) and one.name == four.name
    np.testing.assert_array_equal(four(paths), one(paths))


def test_the_rows_of_the_table_come_from_one_command(place, run):
    sets = {
        "data.folder": place / "images",
        "data.data_dir": place / "data",
        "data.max_excluded": 2,
        "data.meta_per_class": 2,
        "encoder.weights": place / "stage1.pth",
        "encoder.resize": 36,
        "encoder.side": 32,
        "stage1.epochs": 1,
        "stage1.batch_size": 32,
        "stage2.crt.epochs": 1,
        "stage2.crt.batch_size": 32,
        "stage2.otrw_paper.epochs": 1,
        "stage2.otrw_paper.batch_size": 32,
    }
    arguments = [f"--set={name}={value}" for name, value in sets.items()]
    records = place / "records"
    with flagsaver.flagsaver():
        argv = ["reproduce", f"--workdir={place / 'runs'}", f"--records={records}"]
        argv += ["--recipes=ce,crt,otrw_paper", "--seeds=0", *arguments, "table4"]
        reproduce.main(flags.FLAGS(argv))
    recorded = {record["row"]: record for record in read(records / "table4.jsonl")}
    assert list(recorded) == ["ce", "crt", "otrw_paper"]
    for record in recorded.values():
        assert record["imbalance_factor"] == 256 and record["dataset"] == "imagenet_lt"
        assert record["encoder"] == "resnet50 (stage1.pth) at 32²"
        assert (
            not {"data.folder", "encoder.weights"} & (record["config"] | record["changes"]).keys()
        )
    text = document(records)
    assert "### imagenet_lt, imbalance factor 256" in text and "| 52.36 |" in text
    for title in ("Places-LT (the paper's table 3)", "iNaturalist 2018 (the paper's table 6)"):
        assert f"## {title}" in text


def test_of_inaturalist_the_meta_set_is_trained_on_too(tmp_path, capsys):
    made_set(tmp_path / "images", (4, 2, 3), "inaturalist2018")
    (tmp_path / "stage1.pth").write_bytes(in_pth(made.resnet(50), decoupled))
    config = large_sets.get_config(f"dataset=inaturalist2018,folder={tmp_path / 'images'}")
    config.data.data_dir = str(tmp_path / "data")
    config.encoder.update({"weights": str(tmp_path / "stage1.pth"), "resize": 36, "side": 32})
    source = Experiment(config).source
    split, other = source.split(0), source.split(1)
    assert split.counts.tolist() == [4, 2, 3] and len(split.train) == 9
    assert np.bincount(source.dataset.train_labels[split.meta]).tolist() == [2, 2, 2]
    assert set(split.meta) < set(split.train) and not len(split.held_out)
    assert split.meta.tolist() != other.meta.tolist()
    out = capsys.readouterr().out
    assert "2 examples of each class of the train part, which are trained on all the same" in out
    assert "the validation list is what is tested on" in out


def test_the_lists_may_lie_elsewhere(place, run, tmp_path):
    shutil.copytree(place / "images", tmp_path / "images", ignore=shutil.ignore_patterns("*.txt"))
    config = small(place)
    config.data.update({"folder": str(tmp_path / "images"), "lists": str(place / "images")})
    restored = restore(run[0], data_dir=str(place / "images"))
    assert Experiment(config).source.split(0).fingerprint == restored.prepared.split.fingerprint


def test_the_paper_s_settings_are_those_of_its_text():
    for name, epochs, batch, rate, of_weights, decay in (
        ("places_lt", 50, 32, 1e-4, 1e-3, 5e-3),
        ("imagenet_lt", 50, 128, 2e-5, 1e-2, 5e-4),
        ("inaturalist2018", 200, 64, 1e-4, 1e-3, 5e-3),
    ):
        config = large_sets.get_config(f"dataset={name}")
        section = config.stage2.otrw_paper
        network, weights = section.optimizer, section.weight_optimizer
        assert (section.epochs, section.batch_size) == (epochs, batch)
        assert (network.learning_rate, network.weight_decay) == (rate, decay)
        assert (network.momentum, weights.learning_rate) == (0.9, of_weights)
        assert section.choices.trainable == "head/.*"
        # Matrices of all classes would take 4 K d² bytes, 17 GB and more.
        assert config.options.metasaug_ce.covariance == "diagonal"
        costs = {"inaturalist2018": "feature"}
        assert section.choices.cost == costs.get(name, "combined")
        assert config.encoder.network == ("resnet152" if name == "places_lt" else "resnet50")
        published = LONG_TAILED[name]
        assert LISTED[name] == published.largest / published.smallest and name in IMAGE_FOLDERS


@pytest.mark.parametrize(
    "fields, text",
    [
        ({"data.folder": ""}, "data.folder is empty; give --config.data.folder=DIR, the folder"),
        ({"encoder.weights": ""}, "encoder.weights is empty; give the path of a resnet50"),
    ],
)
def test_what_is_not_given_is_asked_for(place, fields, text):
    with pytest.raises(SourceError, match=text):
        Experiment(small(place, **fields))


@pytest.mark.parametrize(
    "fields, text",
    [
        ({"encoder.side": 40}, "encoder.side is 40, and encoder.resize is 36: the middle that is"),
        ({"data.imbalance_factor": 9.0}, "data.imbalance_factor is 9.0, and the lists of"),
        ({"encoder.mean": (0.1, 0.2)}, r"encoder.mean is \(0.1, 0.2\); it must be a tuple"),
        ({"data.meta_from": "all"}, "data.meta_from is 'all'; it must be one of first, meta"),
    ],
)
def test_fields_that_no_run_can_have(place, fields, text):
    with pytest.raises(ValueError, match=text):
        small(place, **fields)


def test_a_row_of_reduced_prototypes_is_the_paper_s():
    table = TABLES["table4"]
    config = row_config(table.rows["reduced"], table.dataset, table.imbalance_factor, {})
    choices = config.stage2.otrw_paper.choices
    assert (choices.measure, choices.measure_size) == ("random_prototypes", 100)
    with pytest.raises(ValueError, match=r"factor=100\.0: the lists of imagenet_lt have 256"):
        row_config(table.rows["ce"], table.dataset, 100.0, {})


def test_another_set_has_fields_of_its_own():
    file = "experiments/configs/large_sets.py"
    config = large_sets.get_config()
    config.data.name = "places_lt"
    with pytest.raises(ValueError, match=rf"give --config={file}:dataset=places_lt\."):
        check_overrides(config, file, {"data.name": "places_lt"})


def test_what_is_none_of_the_three():
    with pytest.raises(ValueError, match="dataset='imagenet'; choose imagenet_lt, places_lt, inat"):
        large_sets.get_config("dataset=imagenet")
