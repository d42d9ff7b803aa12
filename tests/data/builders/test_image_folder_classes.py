"""Folders of images: classes and parts that no run can have, and the order of classes."""

import shutil

import pytest

from otrw_jax.data.builders.image_folder import load_image_folder
from otrw_jax.data.builders.manual import SourceError
from tests.data.builders.image_files import make_folder, save


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "images")


def _emptied(root):
    for path in (root / "train/dog").iterdir():
        path.write_text("")


def _one_class(root):
    for part in ("train", "test"):
        shutil.rmtree(root / part / "dog")


def _of_test_alone(root):
    save(root / "test/eel/0.png")


def _not_tested(root):
    shutil.rmtree(root / "test/dog")


def _of_validation_alone(root):
    save(root / "val/eel/0.png")


def _meta_lacks(root):
    save(root / "meta/cat/0.png")


def _beside_parts(root):
    save(root / "cat/0.png")


def _no_train(root):
    shutil.rmtree(root / "train")


def _twice(root):
    make_folder(root, parts=("val", "validation"))


def _blank(root):
    (root / "train/dog").rename(root / "train/dog ")


def _nothing(root):
    shutil.rmtree(root)
    root.mkdir()


@pytest.mark.parametrize(
    "change, text",
    [
        (_emptied, "{root}: no training image of dog can be used"),
        (_one_class, "{root} has training images of 1 class (cat); a classifier needs two"),
        (_of_test_alone, "{root}: 1 images of the test part are of classes without training"),
        (_of_validation_alone, "{root}: 1 images of the validation part are of classes without"),
        (_not_tested, "{root}: 1 of 2 classes have no image in the test part (dog)"),
        (_meta_lacks, "{root}: 1 of 2 classes have no image in the meta part (dog)"),
        (_beside_parts, "{root} has test, train and also cat; give either folders of parts or"),
        (_no_train, "{root} has test and no train; give training images."),
        (_twice, "{root} has test, train, val, validation, two of which are one part"),
        (_blank, "{root}: the class 'dog ' begins or ends with a blank, or has a line break"),
        (_nothing, "{root} lists no image; give a folder with a folder of images for each class"),
        (shutil.rmtree, "{root} does not exist; give a folder of class folders, or a table"),
    ],
)
def test_classes_and_parts_that_no_run_can_have(root, tmp_path, change, text):
    change(root)
    with pytest.raises((SourceError, FileNotFoundError)) as raised:
        load_image_folder(root, tmp_path / "data", max_excluded=9)
    assert str(raised.value).startswith(text.format(root=root)) and str(raised.value)[-1] == "."
    assert not (tmp_path / "data").exists()


def test_an_empty_class_folder_is_none_and_told(root, tmp_path):
    (root / "train/eel").mkdir()
    found = load_image_folder(root, tmp_path / "data")
    assert found.class_names == ("cat", "dog")
    assert "train/eel is empty, and left out." in found.notes


def test_a_class_of_one_image_cannot_give_one_for_testing(tmp_path):
    root = make_folder(tmp_path / "all", parts=("",))
    save(root / "eel/0.png")
    with pytest.raises(SourceError, match="class eel has 1 images, too few different ones"):
        load_image_folder(root, tmp_path / "data")


def test_classes_of_numbers_are_in_their_order(tmp_path):
    root = make_folder(tmp_path / "images", classes=("10", "9", "007"), count=1)
    found = load_image_folder(root, tmp_path / "data")
    assert found.class_names == ("007", "9", "10")
    assert [found.class_names[label] for label in found.labels["train"]] == [
        path.parent.name for path in found.paths["train"]
    ]
