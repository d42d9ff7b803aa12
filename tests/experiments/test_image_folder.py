"""A folder of images to results: features computed once, meta sets, recipes, evaluation."""

import shutil

import numpy as np
import pytest

from experiments.configs.checks.fields import check_config
from experiments.program.experiment import Experiment
from experiments.program.images.image_folder import FileEncoder
from experiments.runs.directory import ConfigMismatchError
from experiments.runs.restoring import restore
from experiments.runs.training import train
from otrw_jax.data.builders.image_files import read_square
from otrw_jax.models.image_encoder import efficientnet_lite0_encoder
from tests.data.builders.image_files import make_folder, save
from tests.experiments.image_runs import CLASSES, small

pytestmark = pytest.mark.usefixtures("rank_promotion")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder of images in three parts, and a place for their features."""
    root = tmp_path_factory.mktemp("images")
    make_folder(root / "mine", CLASSES, 6, ("train", "val", "test"))
    return root


def test_features_are_those_of_the_encoder_in_the_order_of_the_list(shared, capsys):
    source = Experiment(small(shared)).source
    paths = sorted((shared / "mine").glob("test/*/*"))
    images = np.stack([read_square(path, 32) for path in paths])
    expected = efficientnet_lite0_encoder(32)(images)
    np.testing.assert_array_equal(source.dataset.test_inputs, expected)
    assert source.dataset.test_labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    out = capsys.readouterr().out
    assert "image_folder: the 3 classes are in the order of their names: cat, dog, eel." in out
    assert (
        "the meta set is 2 examples of each class of the validation part; the others are held out"
        in out
    )


def test_features_are_computed_once_whatever_the_seed_and_the_recipe(shared, monkeypatch):
    first = Experiment(small(shared)).source.dataset
    monkeypatch.setattr(FileEncoder, "blocks", lambda self, *_: pytest.fail("computed anew"))
    for recipe in ("cb", "otrw_paper"):
        again = Experiment(small(shared, recipe, meta_from="train")).source.dataset
        np.testing.assert_array_equal(again.test_inputs, first.test_inputs)


@pytest.mark.parametrize(
    "field, value", [("encoder.side", 33), ("encoder.crop", "none"), ("data.test_share", 0.5)]
)
def test_another_view_has_features_of_its_own(shared, monkeypatch, field, value):
    made = []

    def count(self, paths, start):
        made.append((self.name, start))
        yield np.ones((len(paths), 4), np.float32)

    Experiment(small(shared))
    monkeypatch.setattr(FileEncoder, "blocks", count)
    config = small(shared)
    config.update_from_flattened_dict({field: value})
    Experiment(config)
    # A share for testing changes nothing where there is a test part.
    assert len(made) == (0 if field == "data.test_share" else 3)


@pytest.mark.parametrize("recipe", ["cb", "otrw_paper", "otrw_released", "otrw_net"])
def test_a_run_ends_and_is_restored_from_a_folder_that_was_moved(shared, tmp_path, recipe):
    results = train(Experiment(small(shared, recipe)), tmp_path / "run", 0, 0)
    assert 0 <= results["last"]["error"] <= 100
    moved = shutil.copytree(shared / "mine", tmp_path / "moved")
    restored = restore(tmp_path / "run", data_dir=str(moved))
    assert restored.logits(restored.prepared.test.inputs).shape == (18, 3)
    save(moved / "train" / "cat" / "0.jpg", 1234, suffix="JPEG")
    with pytest.raises(ConfigMismatchError, match="holds a run of other data"):
        restore(tmp_path / "run", data_dir=str(moved))


def test_one_tree_has_its_test_and_meta_sets_split_off(shared, capsys):
    make_folder(shared / "tree", CLASSES, 10, ("",))
    source = Experiment(small(shared, folder="tree", held_out_per_class=1)).source
    split = source.split(0)
    assert [len(ids) for ids in (split.train, split.meta, split.held_out)] == [15, 6, 3]
    assert len(source.dataset.test_labels) == 6
    out = capsys.readouterr().out
    assert "there is no test part: 6 training images become it, 20% of each class" in out
    assert "2 examples of each class of the train part, which are not trained on" in out


def test_without_a_folder_it_says_so(shared):
    config = small(shared)
    config.data.folder = ""
    with pytest.raises(ValueError, match=r"data.folder is empty; give --config.data.folder=DIR"):
        Experiment(config)


@pytest.mark.parametrize(
    "field, value, text",
    [
        ("encoder.side", 4, "encoder.side is 4; it must be a whole number of 8 or more."),
        ("encoder.crop", "middle", "encoder.crop is 'middle'; it must be one of center, none."),
        ("data.test_share", 1.0, "data.test_share is 1.0; it must be a number in"),
        ("data.max_excluded", -1, "data.max_excluded is -1; it must be a whole number of 0"),
    ],
)
def test_fields_out_of_their_range_are_refused(shared, field, value, text):
    config = small(shared)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError) as raised:
        check_config(config)
    assert str(raised.value).startswith(text)
