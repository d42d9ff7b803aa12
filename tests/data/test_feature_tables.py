"""Parquet files: columns of lists, of numbers, and what is no table of examples."""

import sys

import numpy as np
import pytest

from otrw_jax.data.features import load_features
from tests.data.feature_arrays import FORMS, table


def test_columns_of_a_table_are_features(tmp_path):
    rows = {"x": [1.0, 2, 3, 4], "n": [1, 2, 3, 4], "key": list("abcd"), "label": list("uvuv")}
    path = table(tmp_path / "all.parquet", rows | {"split": ["train", "train", "test", "test"]})
    found = load_features(path)
    np.testing.assert_array_equal(found.parts["train"].features, [[1, 1], [2, 2]])
    assert found.class_names == ("u", "v")
    assert any("the features are the columns x, n." in note for note in found.notes)
    assert any("the columns key are no numbers" in note for note in found.notes)


def test_truth_values_are_features(tmp_path):
    rows = {"x": [True, False, True, False], "y": [False] * 3 + [True], "label": [0, 1, 0, 1]}
    path = table(tmp_path / "all.parquet", rows | {"split": ["train", "train", "test", "test"]})
    np.testing.assert_array_equal(load_features(path).parts["test"].features, [[1, 0], [0, 1]])


@pytest.mark.parametrize("name", ["x", "label"])
def test_a_column_that_is_there_twice(tmp_path, name):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = [pa.array([0, 1])] * 3
    path = tmp_path / "all.parquet"
    parquet.write_table(pa.table(columns, names=["x", "label", name]), path)
    with pytest.raises(ValueError, match=f"all.parquet has two columns {name}; rename or delete"):
        load_features(path)


TABLES = {
    "a gap in truth values": (
        {"x": [True, None] * 2, "label": [0, 1] * 2, "split": ["train"] * 2 + ["test"] * 2},
        r"train_features\): 1 of 2 rows have numbers that are not finite",
    ),
    "no label": ({"x": [1.0]}, "has the columns x; one of them must be the class"),
    "two labels": ({"x": [1.0], "label": [0], "labels": [0]}, "one of them must be the class"),
    "no numbers": ({"x": ["a"], "label": [0]}, "has no columns of numbers beside label"),
    "no features": ({"features": [[1.0], None], "label": [0, 1]}, r"1 rows have no features"),
    "ragged": ({"features": [[1.0], [1.0, 2]], "label": [0, 1]}, "have 1 to 2 numbers"),
    "no lists": ({"features": ["a", "b"], "label": [0, 1]}, "features is string; it must be lists"),
    "no class": ({"x": [1.0, 2], "label": ["a", None]}, r"1 rows have no label \(null\)"),
    "parts": ({"x": [1.0], "label": [0], "split": ["dev"]}, "the column split has dev; it must be"),
    "a gap": (
        {"x": [1.0, None, 2, 3], "label": [0, 1, 0, 1], "split": ["train"] * 2 + ["test"] * 2},
        r"train_features\): 1 of 2 rows have numbers that are not finite",
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_odd_tables(tmp_path, case):
    columns, said = TABLES[case]
    with pytest.raises(ValueError, match=said):
        load_features(table(tmp_path / "all.parquet", columns))


def test_tables_without_pyarrow(tmp_path, monkeypatch):
    path = FORMS["parquet"](tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'otrw_jax\[parquet\]'"):
        load_features(path)
