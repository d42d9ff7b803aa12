"""Features of odd dtypes, lengths and numbers: changed and said, or refused by their file."""

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from otrw_jax.data.features import load_features
from tests.data.feature_arrays import EACH, WIDTH, part, plain, write


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_npy_stays_mapped_and_of_its_dtype(tmp_path, dtype):
    arrays = plain(train_features=part(0, dtype=dtype)[0], test_features=part(1, dtype=dtype)[0])
    found = load_features(write(tmp_path / "all", arrays))
    for one in found.parts.values():
        assert isinstance(one.features, np.memmap) and one.features.dtype == dtype
    assert found.notes == ()


def test_meta_and_validation_parts(tmp_path):
    more = {}
    for name in ("meta", "validation"):
        more[f"{name}_features"], more[f"{name}_labels"] = part(7)
    found = load_features(write(tmp_path / "all", plain(**more)))
    assert list(found.parts) == ["train", "test", "meta", "validation"]


def test_a_training_part_alone(tmp_path):
    arrays = plain(test_features=None, test_labels=None)
    assert list(load_features(write(tmp_path / "one", arrays), test=False).parts) == ["train"]
    with pytest.raises(ValueError, match=r"one has no test part; give test_features and"):
        load_features(tmp_path / "one")


CAST = {
    "float64": np.float64,
    "whole numbers": np.int16,
    "bytes": np.uint8,
    "the other byte order": np.dtype(np.float32).newbyteorder(),
}


@pytest.mark.parametrize("case", CAST)
def test_other_numbers_become_float32(tmp_path, case):
    features = (10 * part(0)[0]).clip(0).astype(CAST[case])
    found = load_features(write(tmp_path / "all", plain(train_features=features)))
    read = found.parts["train"].features
    assert read.dtype == np.float32 and read.dtype.isnative
    np.testing.assert_allclose(read, features, rtol=1e-6)
    swapped = case == "the other byte order"
    assert swapped == (found.notes == ())
    assert swapped or f"features are {features.dtype}, and become float32" in found.notes[0]


def test_bfloat16_of_safetensors_becomes_float32(tmp_path):
    arrays = plain()
    arrays["train_features"] = arrays["train_features"].astype(ml_dtypes.bfloat16)
    safetensors.numpy.save_file(arrays, tmp_path / "all.safetensors")
    found = load_features(tmp_path / "all.safetensors")
    assert found.parts["train"].features.dtype == np.float32
    assert "features are bfloat16, and become float32" in found.notes[0]


def test_parts_of_two_dtypes_become_the_wider(tmp_path):
    found = load_features(write(tmp_path / "a", plain(test_features=part(1, dtype=np.float16)[0])))
    assert {one.features.dtype for one in found.parts.values()} == {np.dtype(np.float32)}
    assert found.notes == (
        "features are float16 in some parts and float32 in others; all become float32.",
    )


def set_to(value, at=5):
    def change(arrays):
        arrays["train_features"][at] = value

    return change


def changed(**arrays):
    return lambda given: given.update(arrays)


def gone(*names):
    return lambda given: [given.pop(name) for name in names]


OBJECTS = np.array([{"a": 1}] * 9, dtype=object)


REFUSED = {
    "NaN rows": (set_to(np.nan), r"train_features.npy: 1 of 9 rows .* not finite.*\(rows 5\)"),
    "infinite": (set_to(np.inf, slice(2, 4)), r"train_features.npy: 2 of 9 .*\(rows 2, 3\)"),
    "too large for float32": (
        changed(train_features=np.full((9, WIDTH), 1e300)),
        r"train_features.npy: 9 of 9 rows .*too large for float32",
    ),
    "fewer labels": (
        changed(train_labels=np.arange(8) % 3),
        r"train_features.npy has 9 rows and .*train_labels.npy 8 labels; give one label",
    ),
    "one label": (changed(train_labels=np.int64(1)), "train_labels.npy a single labels"),
    "widths": (
        changed(test_features=part(1)[0][:, :2]),
        r"test_features.npy has features of 2 numbers and .*train_features.npy of 4",
    ),
    "empty training part": (
        changed(train_features=np.zeros((0, WIDTH), np.float32), train_labels=np.zeros(0, int)),
        r"train_features.npy holds no example; give some\.",
    ),
    "empty meta part": (
        changed(meta_features=np.zeros((0, WIDTH), np.float32), meta_labels=np.zeros(0, int)),
        r"meta_features.npy holds no example; give some, or leave the part out",
    ),
    "no test labels": (gone("test_labels"), "has test_features without test_labels; give both"),
    "no training features": (gone("train_features"), "has train_labels without train_features"),
    "no training part": (gone("train_features", "train_labels"), "has no train part; give train_"),
    "images": (
        changed(train_features=np.zeros((9, 2, 2), np.float32)),
        r"train_features.npy: features have shape \(9, 2, 2\); give a vector",
    ),
    "numbers": (changed(train_features=np.zeros(9, np.float32)), r"shape \(9,\); give a vector"),
    "no width": (changed(train_features=np.zeros((9, 0), np.float32)), r"shape \(9, 0\)"),
    "complex features": (changed(train_features=np.zeros((9, 2), complex)), "are complex128; give"),
    "text features": (changed(train_features=np.full((9, 2), "x")), "are <U1; give float16"),
    "objects as features": (
        changed(train_features=OBJECTS),
        "train_features.npy holds an array of Python objects.*never unpickled",
    ),
    "objects as labels": (
        changed(train_labels=OBJECTS),
        "train_labels.npy holds an array of Python objects.*never unpickled",
    ),
    "labels that are halves": (
        changed(train_labels=np.arange(9) / 2),
        r"train_labels.npy: the label of row 1 is 0.5; labels are whole numbers or names",
    ),
    "labels that are none": (changed(train_labels=np.full(9, np.nan)), "label of row 0 is nan"),
    "dates": (changed(train_labels=np.zeros(9, "datetime64[s]")), r"are datetime64\[s\]; give"),
    "one-hot labels": (
        changed(train_labels=np.eye(3)[np.arange(9) % 3]),
        r"labels have shape \(9, 3\); give one for each example.*argmax",
    ),
    "labels beyond 64 bits": (
        changed(train_labels=np.full(9, 2**64 - 1, np.uint64)),
        "a label is 18446744073709551615; numbers must fit 64 bits",
    ),
    "a class in the test part alone": (
        changed(test_labels=np.repeat([0, 1, 5], EACH)),
        r"test_labels.npy: 3 examples are of classes without training example \(5\)",
    ),
    "names against numbers": (
        changed(test_labels=np.repeat(["a", "b", "c"], EACH)),
        r"test_labels.npy has labels that are names and .*train_labels.npy labels that are num",
    ),
    "a meta set without a class": (
        changed(meta_features=np.zeros((2, WIDTH), np.float32), meta_labels=np.array([0, 1])),
        r"meta_labels.npy: 1 of 3 classes have no meta example \(2\)",
    ),
    "one class": (
        changed(train_labels=np.zeros(9, int), test_labels=np.zeros(9, int)),
        "all examples are of one class, 0; a classifier needs two or more",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_odd_arrays_are_refused_by_their_file(tmp_path, case):
    change, said = REFUSED[case]
    arrays = plain()
    change(arrays)
    with pytest.raises(ValueError, match=said) as error:
        load_features(write(tmp_path / "all", arrays))
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
