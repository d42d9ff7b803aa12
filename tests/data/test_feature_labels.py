"""Labels that are names, from 1, with gaps or of a list become classes, and what is said."""

import numpy as np
import pytest

from otrw_jax.data.features import load_features
from tests.data.feature_arrays import EACH, part, plain, write


def labelled(labels, test=None):
    labels = np.repeat(labels, EACH)
    return plain(train_labels=labels, test_labels=labels if test is None else np.repeat(test, EACH))


# Labels as stored, the list of names or None, the names of the classes, the classes, what is said.
ORDERED = {
    "names": (["b", "c", "a"], None, "abc", [1, 2, 0], "in the order of their names"),
    "names of a list": (["b", "c", "a"], "cba", "cba", [1, 0, 2], None),
    "bytes": ([b"b", b"c", b"a"], None, "abc", [1, 2, 0], "in the order of their names"),
    "1-based": ([1, 3, 2], None, "123", [0, 2, 1], "labels are 1, 2, 3; they are numbered 0 to 2"),
    "1-based of a list": ([1, 3, 2], "cba", "cba", [0, 2, 1], "label 1 is the first of"),
    "0-based of a list": ([0, 2, 1], "cba", "cba", [0, 2, 1], None),
    "with gaps": ([7, -1, 3], None, ("-1", "3", "7"), [2, 0, 1], "labels are -1, 3, 7;"),
    "floats": ([0.0, 2.0, 1.0], None, "012", [0, 2, 1], "float64, all of them whole"),
    "digits as text": (["10", "9", "11"], None, ("9", "10", "11"), [1, 0, 2], "written as text"),
    "digits with zeros": (["1", "01", "2"], None, ("01", "1", "2"), [1, 0, 2], "of their names"),
    "digits beyond 64 bits": (["9" * 20, "1", "2"], None, ("1", "2", "9" * 20), [2, 0, 1], "names"),
    "digits of a list": (["1", "0", "2"], "210", "210", [1, 2, 0], None),
    "unsigned": (np.array([2, 0, 1], np.uint8), None, "012", [2, 0, 1], None),
}


@pytest.mark.parametrize("case", ORDERED)
def test_labels_become_classes(tmp_path, case):
    labels, listed, names, classes, said = ORDERED[case]
    found = load_features(write(tmp_path / "all", labelled(labels), listed))
    assert found.class_names == tuple(names)
    np.testing.assert_array_equal(found.parts["train"].labels, np.repeat(classes, EACH))
    assert (said is None and found.notes == ()) or any(said in note for note in found.notes)


def test_truth_values_are_two_classes(tmp_path):
    labels = np.arange(9) > 3
    found = load_features(write(tmp_path / "all", plain(train_labels=labels, test_labels=labels)))
    assert found.class_names == ("0", "1")
    np.testing.assert_array_equal(found.parts["test"].labels, labels)


def test_labels_of_one_column(tmp_path):
    labels = part(0)[1][:, None]
    found = load_features(write(tmp_path / "all", plain(train_labels=labels)))
    np.testing.assert_array_equal(found.parts["train"].labels, labels[:, 0])


@pytest.mark.parametrize("label", [2.0**63, -(2.0**64)])
def test_floats_beyond_64_bits(tmp_path, label):
    with pytest.raises(ValueError, match=r"a label is -?\d.*e\+1\d; numbers must fit 64 bits"):
        load_features(write(tmp_path / "all", labelled([0.0, 1.0, label])))


def test_a_list_with_a_byte_order_mark(tmp_path):
    folder = write(tmp_path / "all", labelled(["a", "b", "c"]))
    (folder / "class_names.txt").write_text("c\nb\na\n", encoding="utf-8-sig")
    assert load_features(folder).class_names == ("c", "b", "a")


LISTS = {
    "empty": ("", "class_names.txt has no name; give one for each class, or delete it"),
    "too short": ("ab", r"train_labels.npy: a label is 2, and .*class_names.txt has 2 names"),
    "too long": ("abcd", r"1 of 4 classes have no training example \(d\)"),
    "a name twice": ("aba", "class_names.txt has 'a' twice"),
    "an empty name": (["a", "", "b"], "class_names.txt has an empty name"),
}


@pytest.mark.parametrize("case", LISTS)
def test_class_lists_that_do_not_fit(tmp_path, case):
    listed, said = LISTS[case]
    with pytest.raises(ValueError, match=said):
        load_features(write(tmp_path / "all", plain(), listed))


def test_a_class_list_without_a_name_that_is_a_label(tmp_path):
    folder = write(tmp_path / "all", labelled(["a", "b", "x"]), "abc")
    with pytest.raises(ValueError, match=r"classes have no training example \(c\)"):
        load_features(folder)
