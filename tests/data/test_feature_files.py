"""Feature files of every form hold the same, and those that are none are refused by name."""

import pickle

import numpy as np
import pytest
import safetensors.numpy

from otrw_jax.data.features import load_features
from tests.data.feature_arrays import FORMS, part, plain, write


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same(tmp_path, form):
    found = load_features(FORMS[form](tmp_path))
    for name, (features, labels) in found.parts.items():
        expected = plain()
        np.testing.assert_array_equal(features, expected[f"{name}_features"])
        np.testing.assert_array_equal(labels, expected[f"{name}_labels"])
        assert labels.dtype == np.int32
        assert np.issubdtype(features.dtype, np.float32) or "parquet" in form
    assert list(found.parts) == ["train", "test"]
    assert found.class_names == ("0", "1", "2") and found.num_classes == 3


def test_class_names_within_npz_and_safetensors(tmp_path):
    names = np.array(["cat", "dog", "eel"])
    np.savez(tmp_path / "all.npz", **plain(), class_names=names)
    safetensors.numpy.save_file(
        plain(), tmp_path / "all.safetensors", metadata={"class_names": "\n".join(names)}
    )
    for name in ("all.npz", "all.safetensors"):
        assert load_features(tmp_path / name).class_names == ("cat", "dog", "eel")


def test_what_has_no_part_s_name_is_left_aside_and_said(tmp_path):
    folder = write(tmp_path / "all", plain(extra=np.zeros(2)))
    (folder / "notes.md").write_text("mine")
    assert load_features(folder).notes == (
        f"{folder}: extra.npy left aside, being of no part's name.",
    )


def cut(path, share=0.6):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


@pytest.mark.parametrize("form", ["npz", "safetensors", "parquet"])
@pytest.mark.parametrize("share", [0, 0.6])
def test_a_file_cut_off(tmp_path, form, share):
    path = cut(FORMS[form](tmp_path), share)
    with pytest.raises(ValueError, match=f"all.{form} is cut off, or no .*: write it anew"):
        load_features(path)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_an_npy_cut_off(tmp_path, share):
    cut(write(tmp_path / "all", plain()) / "train_features.npy", share)
    with pytest.raises(ValueError, match=r"train_features.npy (is cut off|holds an array of Py)"):
        load_features(tmp_path / "all")


def test_a_pickle_by_another_name_is_not_unpickled(tmp_path):
    folder = write(tmp_path / "all", plain())
    (folder / "train_features.npy").write_bytes(pickle.dumps(print))
    with pytest.raises(ValueError, match="is never unpickled"):
        load_features(folder)


def test_a_part_in_two_formats(tmp_path):
    folder = write(tmp_path / "all", plain())
    features, labels = part(0)
    np.savez(folder / "train.npz", features=features, labels=labels)
    with pytest.raises(ValueError, match=r"holds train_\w+, and so does .*; delete one"):
        load_features(folder)


PLACES = {
    "none": (lambda root: root / "none", FileNotFoundError, "none does not exist; give a folder"),
    "an empty folder": (lambda root: root, ValueError, "holds no features; give a folder with"),
    "one array": (
        lambda root: write(root / "a", plain()) / "train_features.npy",
        ValueError,
        "is one array, and features without labels are no data set",
    ),
    "another format": (lambda root: cut_csv(root), ValueError, "of no format that is read here"),
    "one part": (
        lambda root: np.savez(root / "a.npz", features=[[1.0]], labels=[0]) or root / "a.npz",
        ValueError,
        "has no train part .its arrays are named features and labels, of no part",
    ),
    "other names": (
        lambda root: np.savez(root / "a.npz", x=[[1.0]], y=[0]) or root / "a.npz",
        ValueError,
        "holds no array named features or labels",
    ),
}


def cut_csv(root):
    (root / "a.csv").write_text("1,2\n")
    return root / "a.csv"


@pytest.mark.parametrize("case", PLACES)
def test_places_that_hold_no_data_set(tmp_path, case):
    place, kind, said = PLACES[case]
    with pytest.raises(kind, match=said):
        load_features(place(tmp_path))
