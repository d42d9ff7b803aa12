import os
import pathlib
import shutil

import numpy as np
import pytest

from otrw_jax.data.builders import image_folder
from otrw_jax.data.builders.image_folder import load_image_folder
from otrw_jax.data.builders.manual import SourceError
from tests.data.builders.image_files import cut_off, make_folder, save, undecodable_name


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "images")


def names(folder, part="train"):
    """Class and file name of each image of a part, in the order of their numbers."""
    pairs = zip(folder.paths[part], folder.labels[part], strict=True)
    return [(folder.class_names[label], path.name) for path, label in pairs]


def test_a_folder_of_parts(root, tmp_path):
    found = load_image_folder(root, tmp_path / "data")
    assert set(found.paths) == {"train", "test"}
    assert found.class_names == ("cat", "dog")
    for part in ("train", "test"):
        expected = [(c, f"{i}.jpg") for c in ("cat", "dog") for i in range(3)]
        assert names(found, part) == expected
        assert all(path.parent.parent.name == part for path in found.paths[part])
        assert found.labels[part].dtype == np.int32
    assert found.notes == ("the 2 classes are in the order of their names: cat, dog.",)


@pytest.mark.parametrize("folder", ["val", "validation", "VAL"])
def test_a_validation_and_a_meta_part(tmp_path, folder):
    root = make_folder(tmp_path / "images", parts=("train", folder, "meta", "test"), count=1)
    found = load_image_folder(root, tmp_path / "data")
    assert list(found.paths) == ["train", "validation", "meta", "test"]


def test_one_tree_gives_a_share_of_each_class_for_testing(tmp_path):
    root = make_folder(tmp_path / "all", count=5, parts=("",))
    found = load_image_folder(root, tmp_path / "data", test_share=0.4)
    for part, count in (("train", 3), ("test", 2)):
        assert np.bincount(found.labels[part]).tolist() == [count, count]
    assert not set(found.paths["train"]) & set(found.paths["test"])
    assert found.notes[0] == (
        "there is no test part: 4 training images become it, 40% of each class, the same under "
        "every seed."
    )
    # Which they are, their content decides, not their names.
    for number, path in enumerate(found.paths["test"]):
        path.rename(path.with_name(f"zz{number}.jpg"))
    again = load_image_folder(root, tmp_path / "data", test_share=0.4)
    assert sorted(name for _, name in names(again, "test")) == [f"zz{n}.jpg" for n in range(4)]


def test_copies_stay_on_one_side_and_are_told(tmp_path):
    root = make_folder(tmp_path / "all", count=6, parts=("",))
    for path in list(root.glob("*/*.jpg")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    found = load_image_folder(root, tmp_path / "data", test_share=0.25)
    assert 4 <= len(found.paths["test"]) <= 8
    contents = {part: {p.read_bytes() for p in found.paths[part]} for part in found.paths}
    assert not contents["train"] & contents["test"]
    assert "12 images are copies of others, byte for byte." in found.notes


def test_copies_across_given_parts_are_told(root, tmp_path):
    shutil.copy(root / "train/cat/0.jpg", root / "test/cat/9.jpg")
    notes = load_image_folder(root, tmp_path / "data").notes
    assert "1 images of the test part are in another part too; it flatters." in notes


def _named(name):
    return lambda root: save(root / "train" / "cat" / name, 77, suffix="JPEG")


def _hidden(root):
    for name in ("cat/._0.jpg", "cat/.DS_Store", "cat/Thumbs.db", ".cache/cat.jpg", "desktop.ini"):
        path = root / "train" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("of the system")


def _loop(root):
    (root / "train" / "cat" / "again").symlink_to(root / "train" / "cat")


def _link(root):
    (root / "train" / "cat" / "linked.png").symlink_to(save_elsewhere(root))


def save_elsewhere(root):
    save(root.parent / "elsewhere.png", 99)
    return root.parent / "elsewhere.png"


def _linked_class(root):
    (root / "train" / "cat").rename(root.parent / "cats")
    (root / "train" / "cat").symlink_to(root.parent / "cats", target_is_directory=True)


@pytest.mark.parametrize(
    "change, more",
    [
        (_named("UPPER.JPEG"), ["UPPER.JPEG"]),
        (_named("really a jpeg.png"), ["really a jpeg.png"]),
        (_named("no suffix"), ["no suffix"]),
        (_named("with  spaces, 'quotes' and\ttab.jpg"), ["with  spaces, 'quotes' and\ttab.jpg"]),
        (_named("кошка 猫 🐈.jpg"), ["кошка 猫 🐈.jpg"]),
        (_named("deep/er/below.jpg"), ["below.jpg"]),
        (_hidden, []),
        (_link, ["linked.png"]),
        (_loop, []),
        (_linked_class, []),
    ],
)
def test_odd_names_and_links(root, tmp_path, change, more):
    change(root)
    found = load_image_folder(root, tmp_path / "data")
    expected = {(c, f"{i}.jpg") for c in ("cat", "dog") for i in range(3)}
    assert len(names(found)) == 6 + len(more)
    assert set(names(found)) == expected | {("cat", name) for name in more}


def _cut(root):
    cut_off(root / "train/cat/1.jpg")


def _text(root):
    (root / "train/cat/1.jpg").write_text("no picture")


def _broken_link(root):
    (root / "train/cat/1.jpg").unlink()
    (root / "train/cat/1.jpg").symlink_to(root / "nowhere.jpg")


FAULTS = [
    (_cut, "'train/cat/1.jpg' is damaged or cut off", 5),
    (_text, "'train/cat/1.jpg' is no image", 5),
    (_broken_link, "'train/cat/1.jpg' is missing", 5),
    (lambda root: (root / "train/cat/1.jpg").write_bytes(b""), "'train/cat/1.jpg' is empty", 5),
    (lambda root: save(root / "train/1.jpg"), "'train/1.jpg' stands in no class folder", 6),
    (lambda root: save(root / "1.png"), "'1.png' stands in no class folder", 6),
    (
        lambda root: save(undecodable_name(root / "train/cat"), 50),
        r"'train/cat/\udcff.jpg' is of a name that is no UTF-8",
        6,
    ),
]


@pytest.mark.parametrize("change, fault, left", FAULTS)
def test_what_cannot_be_used_is_refused_or_left_out_within_the_limit(
    root, tmp_path, change, fault, left
):
    change(root)
    data = tmp_path / "data"
    with pytest.raises(SourceError) as raised:
        load_image_folder(root, data)
    assert str(raised.value).startswith(f"{root}: 1 of ") and fault in str(raised.value)
    assert str(raised.value).endswith("mend or remove them, or allow max_excluded=1.")
    assert not data.exists()
    found = load_image_folder(root, data, max_excluded=1)
    assert len(found.paths["train"]) == left
    assert found.notes[-1] == f"files left out: 1 ({fault})."
    # What is kept is not taken under a smaller limit.
    with pytest.raises(SourceError, match="and 0 may be left out"):
        load_image_folder(root, data)


def test_a_kept_list_is_not_taken_under_a_smaller_limit(root, tmp_path, monkeypatch):
    """By what was found then, though the files can be read now."""
    _text(root)
    assert len(load_image_folder(root, tmp_path / "data", max_excluded=1).paths["train"]) == 5
    monkeypatch.setattr(image_folder, "checked", lambda path: "0" * 64)
    with pytest.raises(SourceError, match=r"1 of 12 files .*'train/cat/1.jpg' is no image"):
        load_image_folder(root, tmp_path / "data")


def test_a_file_that_may_be_read_again_is_read_again(root, tmp_path, monkeypatch):
    """Permission changes neither size nor time; root may read all, hence by name."""
    closed, may = root / "train/cat/1.jpg", os.access
    with monkeypatch.context() as shut:
        shut.setattr(
            image_folder.os, "access", lambda path, mode: path != closed and may(path, mode)
        )
        refuse(shut, closed)
        found = load_image_folder(root, tmp_path / "data", max_excluded=1)
        assert len(found.paths["train"]) == 5
    assert len(load_image_folder(root, tmp_path / "data", max_excluded=1).paths["train"]) == 6


def refuse(shut, closed):
    read = pathlib.Path.read_bytes

    def refusing(path):
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return read(path)

    shut.setattr(pathlib.Path, "read_bytes", refusing)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"max_excluded": -1}, "max_excluded is -1; it must be 0 or more and whole"),
        ({"max_excluded": 0.5}, "max_excluded is 0.5; it must be 0 or more and whole"),
        ({"test_share": 0.0}, r"test_share is 0.0; it must be in \(0, 1\)"),
        ({"test_share": 1.0}, r"test_share is 1.0; it must be in \(0, 1\)"),
    ],
)
def test_limits_and_shares_out_of_range(root, tmp_path, change, text):
    with pytest.raises(ValueError, match=text):
        load_image_folder(root, tmp_path / "data", **change)


def test_the_first_ten_faults_are_named(tmp_path):
    root = make_folder(tmp_path / "images", count=7)
    for path in root.glob("train/*/*.jpg"):
        path.write_text("")
    with pytest.raises(SourceError) as raised:
        load_image_folder(root, tmp_path / "data", max_excluded=13)
    text = str(raised.value)
    assert "14 of 28 files cannot be used" in text and text.count("is empty") == 10
    assert "; and 4 more), and 13 may be left out" in text


def test_what_was_checked_is_not_read_again_unless_a_file_has_changed(root, tmp_path, monkeypatch):
    first = load_image_folder(root, tmp_path / "data")
    read = []
    monkeypatch.setattr(image_folder, "checked", lambda path: read.append(path) or "0" * 64)
    again = load_image_folder(root, tmp_path / "data")
    assert again.paths == first.paths and again.fingerprint == first.fingerprint and not read
    os.utime(root / "train/cat/0.jpg", (1, 1))
    load_image_folder(root, tmp_path / "data")
    assert len(read) == 12


def test_the_fingerprint_is_of_the_content_wherever_it_lies(root, tmp_path):
    first = load_image_folder(root, tmp_path / "data").fingerprint
    moved = pathlib.Path(shutil.copytree(root, tmp_path / "moved"))
    os.utime(moved / "train/cat/0.jpg", (1, 1))
    assert load_image_folder(moved, tmp_path / "data").fingerprint == first
    save(moved / "train/cat/0.jpg", 66, suffix="JPEG")
    assert load_image_folder(moved, tmp_path / "data").fingerprint != first


def test_the_check_is_shown(root, tmp_path):
    shown = []

    def watch(items, title, count):
        shown.append((title, count))
        return items

    load_image_folder(root, tmp_path / "data", watch=watch)
    assert shown == [("checking 12 images", 12)]
