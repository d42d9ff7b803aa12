"""ImageNet-LT, Places-LT, iNaturalist 2018: lists made here, and published ones where these are."""

import lzma
import shutil

import numpy as np
import pytest

from otrw_jax.data.builders.image_folder import load_listing
from otrw_jax.data.builders.long_tailed import LONG_TAILED, list_long_tailed, load_long_tailed
from otrw_jax.data.builders.manual import SourceError
from otrw_jax.data.builders.published_lists import read_list
from tests.data.builders.image_files import cut_off
from tests.data.builders.long_tailed_files import made_rows, made_set, write_json, write_list

COUNTS = (5, 2, 3, 1)


@pytest.fixture
def root(tmp_path):
    made_set(tmp_path / "images", COUNTS)
    return tmp_path / "images"


def test_classes_and_their_order_are_those_of_the_lists(root, tmp_path):
    found = load_long_tailed("imagenet_lt", root, tmp_path / "data")
    assert list(found.paths) == ["train", "validation", "test"]
    assert found.class_names == ("n00000040", "n00000033", "n00000026", "n00000019")
    for part, file in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows, _ = read_list(root / f"ImageNet_LT_{file}.txt")
        assert [str(path.relative_to(root)) for path in found.paths[part]] == [p for p, _ in rows]
        assert found.labels[part].tolist() == [label for _, label in rows]
    assert np.bincount(found.labels["train"]).tolist() == list(COUNTS)
    assert found.notes[0] == (
        "the lists are not those of ImageNet-LT as published: 11 / 12 / 8 images (train, "
        "validation, test) of 4 classes, 5 to 1 training images a class."
    )
    assert found.notes[-1].startswith("the 4 classes are in the order of the lists: n00000040,")
    assert (tmp_path / "data" / "imagenet_lt").is_dir()


def test_what_a_caller_does_with_the_parts_is_its_own(root, tmp_path):
    first, again = (load_long_tailed("imagenet_lt", root, tmp_path / "data") for _ in range(2))
    del first.labels["validation"], first.paths["validation"]
    assert list(again.labels) == list(again.paths) == ["train", "validation", "test"]


@pytest.mark.parametrize("count", [-1, 1.5])
def test_the_limit_is_a_number_of_files(root, tmp_path, count):
    with pytest.raises(ValueError, match=f"max_excluded.*{count}"):
        load_long_tailed("imagenet_lt", root, tmp_path / "data", max_excluded=count)
    assert not (tmp_path / "data").exists()


def test_numbers_are_those_of_the_lists_where_folders_are_in_another_order(tmp_path):
    """Sorted folders would give the classes 0, 10, 11, 1, … ."""
    rows = [(f"train_val2018/Aves/{c}/{c}.jpg", c) for c in range(12)]
    for file in ("iNaturalist18_train.txt", "iNaturalist18_val.txt"):
        write_list(tmp_path / file, rows)
    listing = list_long_tailed("inaturalist2018", tmp_path)
    assert listing.class_names == tuple(map(str, range(12)))
    assert [(image.part, image.label) for image in listing.images] == [
        (part, str(c)) for part in ("train", "test") for c in range(12)
    ]
    assert "the validation list is what is tested on" in listing.notes[1]


@pytest.mark.parametrize(
    "folders, names, expected",
    [
        (("Aves/1", "Fungi/0"), None, ("Aves/1", "Fungi/0")),
        (("all", "all"), ("cat", "dog"), ("cat", "dog")),
        (("all", "all"), ("cat", "cat"), ("0", "1")),
        (("all", "all"), None, ("0", "1")),
    ],
)
def test_what_classes_are_called(tmp_path, folders, names, expected):
    rows = [(f"top/{folder}/{c}.jpg", c) for c, folder in enumerate(folders)]
    if names is None:
        write_list(tmp_path / "iNaturalist18_train.txt", rows)
    else:
        write_json(tmp_path / "train2018.json", rows, names)
    write_list(tmp_path / "iNaturalist18_val.txt", [("top/x.jpg", 1), ("top/y.jpg", 0)])
    listing = list_long_tailed("inaturalist2018", tmp_path)
    assert listing.class_names == expected
    assert [i.label for i in listing.images if i.part == "test"] == list(expected)[::-1]


def test_lists_may_lie_elsewhere_and_the_name_of_the_records_does_not_change(root, tmp_path):
    first = load_long_tailed("imagenet_lt", root, tmp_path / "data")
    (tmp_path / "lists").mkdir()
    for file in root.glob("*.txt"):
        shutil.move(file, tmp_path / "lists" / file.name)
    again = load_long_tailed("imagenet_lt", root, tmp_path / "data", lists=tmp_path / "lists")
    assert again.paths == first.paths and again.fingerprint == first.fingerprint
    assert len(list((tmp_path / "data" / "imagenet_lt").iterdir())) == 1


def test_a_flat_validation_folder_is_searched_by_the_files_names(root, tmp_path):
    expected = load_long_tailed("imagenet_lt", root, tmp_path / "data")
    for path in list((root / "val").glob("*/*")):
        path.rename(root / "val" / path.name)
    found = load_long_tailed("imagenet_lt", root, tmp_path / "data")
    assert {path.parent for path in found.paths["test"]} == {root / "val"}
    assert [p.name for p in found.paths["test"]] == [p.name for p in expected.paths["test"]]
    assert found.paths["train"] == expected.paths["train"]
    np.testing.assert_array_equal(found.labels["test"], expected.labels["test"])


def test_names_that_two_files_have_are_not_searched_for(root):
    """Of Places-LT 00000001.jpg is an image of each class."""
    rows = [(f"train/{c}/1.jpg", c) for c in range(4)]
    write_list(root / "Places_LT_train.txt", rows)
    for file in ("val", "test"):
        write_list(root / f"Places_LT_{file}.txt", made_rows((1,) * 4, file, "val"))
    (root / "train" / "1.jpg").write_bytes(b"")
    listing = list_long_tailed("places_lt", root)
    assert [i.path for i in listing.images if i.part == "train"] == [path for path, _ in rows]


def test_names_that_two_parts_have_in_one_folder_are_not_searched_for(root):
    """Else both would be shown one image."""
    rows = {"train": [(f"images/{c}/{c}.jpg", c) for c in range(4)]}
    rows["val"] = [("images/other/3.jpg", 3), ("4.jpg", 0)]
    rows["test"] = [("test/other/3.jpg", 3)]
    for part, listed in rows.items():
        write_list(root / f"Places_LT_{part}.txt", listed)
    for folder in ("images", "test"):
        (root / folder).mkdir()
        (root / folder / "3.jpg").write_bytes(b"")
    found = [image.path for image in list_long_tailed("places_lt", root).images]
    listed = [path for part in ("train", "val") for path, _ in rows[part]]
    assert found == [*listed, "test/3.jpg"]


def test_missing_and_damaged_files_are_refused_or_left_out_within_the_limit(root, tmp_path):
    rows, _ = read_list(root / "ImageNet_LT_train.txt")
    gone, cut = (path for path, label in rows if label == 0 and path[-6] in "01")
    (root / gone).unlink()
    cut_off(root / cut)
    with pytest.raises(SourceError) as raised:
        load_long_tailed("imagenet_lt", root, tmp_path / "data", max_excluded=1)
    text = str(raised.value)
    assert f"{gone!r} is missing" in text and f"{cut!r} is damaged or cut off" in text
    assert text.endswith("or allow max_excluded=2.") and not (tmp_path / "data").exists()
    found = load_long_tailed("imagenet_lt", root, tmp_path / "data", max_excluded=2)
    assert np.bincount(found.labels["train"]).tolist() == [3, *COUNTS[1:]]
    assert found.class_names[0] == "n00000040"


def test_a_class_whose_only_image_cannot_be_read_is_refused(root, tmp_path):
    rows, _ = read_list(root / "ImageNet_LT_train.txt")
    (only,) = (path for path, label in rows if label == 3)
    (root / only).unlink()
    with pytest.raises(SourceError, match="no training image of n00000019 can be used"):
        load_long_tailed("imagenet_lt", root, tmp_path / "data", max_excluded=1)


def test_another_order_of_the_classes_has_records_of_its_own(root, tmp_path):
    listing = list_long_tailed("imagenet_lt", root)
    first = load_listing(listing, tmp_path / "data")
    other = load_listing(listing._replace(class_names=listing.class_names[::-1]), tmp_path / "data")
    assert other.class_names == first.class_names[::-1]
    np.testing.assert_array_equal(other.labels["train"], 3 - first.labels["train"])
    assert other.fingerprint != first.fingerprint


def _gap(root):
    write_list(root / "ImageNet_LT_train.txt", [("a.jpg", 0), ("b.jpg", 2)])


def _further_class(root):
    write_list(root / "ImageNet_LT_test.txt", [("val/a.jpg", 4)])


def _no_line(root):
    (root / "ImageNet_LT_val.txt").write_text("\n")


def _no_list(root):
    (root / "ImageNet_LT_val.txt").unlink()


@pytest.mark.parametrize(
    "change, text",
    [
        (_gap, "{root}/ImageNet_LT_train.txt has classes to 2 and none of class 1; they must be"),
        (_further_class, "{root}/ImageNet_LT_test.txt has class 4, and the 4 classes of {root}/"),
        (_no_line, "{root}/ImageNet_LT_val.txt lists no image; get it anew."),
        (_no_list, "{root} has no ImageNet_LT_val.txt; put the published lists there, or name"),
        (shutil.rmtree, "{root} is no folder; give that of the images of ImageNet-LT, and, where"),
    ],
)
def test_lists_that_no_run_can_have(root, tmp_path, change, text):
    change(root)
    with pytest.raises((SourceError, FileNotFoundError)) as raised:
        load_long_tailed("imagenet_lt", root, tmp_path / "data")
    assert str(raised.value).startswith(text.format(root=root)) and str(raised.value)[-1] == "."
    assert not (tmp_path / "data").exists()


def test_an_unknown_name(tmp_path):
    with pytest.raises(ValueError, match="unknown data set 'imagenet'; did you mean 'imagenet_lt'"):
        list_long_tailed("imagenet", tmp_path)


def _published(folder, name, part):
    """The file of a published list, unpacked; its test is skipped where it is not."""
    for file in LONG_TAILED[name].lists[part]:
        if (folder / file).is_file():
            return (folder / file).read_text()
        if (folder / f"{file}.xz").is_file():
            return lzma.decompress((folder / f"{file}.xz").read_bytes()).decode()
    return pytest.skip(f"{folder} has no list of {name}, {part}")


PARTS = [(name, part) for name, about in LONG_TAILED.items() for part in about.lists]


@pytest.mark.parametrize("name, part", PARTS)
def test_a_published_list_has_its_numbers(name, part, tmp_path, shared_data):
    (tmp_path / "list.txt").write_text(_published(shared_data / "lt_lists", name, part))
    rows, _ = read_list(tmp_path / "list.txt")
    about = LONG_TAILED[name]
    counts = np.bincount([label for _, label in rows])
    assert (len(rows), len(counts)) == (about.images[part], about.classes)
    if part == "train":
        assert (counts.max(), counts.min()) == (about.largest, about.smallest)
    else:
        each = about.images[part] // about.classes
        assert set(counts) == {each}


def test_the_published_lists_of_places_are_taken_as_such(tmp_path, shared_data):
    for part, (file,) in LONG_TAILED["places_lt"].lists.items():
        (tmp_path / file).write_text(_published(shared_data / "lt_lists", "places_lt", part))
    listing = list_long_tailed("places_lt", tmp_path)
    assert listing.notes == (
        "the lists have the numbers that were published: 62,500 / 7,300 / 36,500 images (train, "
        "validation, test) of 365 classes, 4,980 to 5 training images a class.",
    )
    names = listing.class_names
    assert len(names) == 365 and names[0] == "airfield"
    # Sorted, some folders are in another order.
    assert sum(a != b for a, b in zip(names, sorted(names), strict=True)) == 5
