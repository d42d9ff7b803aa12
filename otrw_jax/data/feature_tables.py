"""Features and labels as columns of a Parquet file; needs pyarrow."""

import pathlib

import numpy as np
from jaxtyping import Num, Shaped

from otrw_jax.checks import some
from otrw_jax.data.feature_files import PARTS
from otrw_jax.data.tables import read_parquet

LABELS, PARTED = ("label", "labels"), "split"


def read_table(path: pathlib.Path, notes: list[str]) -> dict[str, np.ndarray]:
    """Reads a table of examples, a row each.

    The class is the column `label` or `labels`; the features are the lists of a column `features`,
    else the columns of numbers. With a column `split` of the parts' names it holds all parts.

    Args:
        path: of the file.
        notes: what is decided is added to it.

    Returns:
        `features` and `labels`, or with a column `split` `train_features`, ….

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
        ValueError: it is no Parquet file, or has not these columns.
    """
    table = read_parquet(path)
    named = [name for name in LABELS if name in table.column_names]
    if len(named) != 1:
        raise ValueError(
            f"{path} has the columns {', '.join(table.column_names)}; one of them must be the "
            "class, by the name label or labels."
        )
    labels = _values(path, table, named[0])
    features = _features(path, table, named[0], notes)
    if PARTED not in table.column_names:
        return {"features": features, "labels": labels}
    return _parted(path, features, labels, _values(path, table, PARTED))


def _features(path, table, label: str, notes: list[str]) -> Num[np.ndarray, "n d"]:
    import pyarrow as pa

    if "features" in table.column_names:
        return _lists(path, table.column("features").combine_chunks())
    names: list[str] = []
    aside: list[str] = []
    for field in table.schema:
        if field.name in (label, PARTED):
            continue
        kind = field.type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        (names if number or pa.types.is_boolean(kind) else aside).append(field.name)
    if not names:
        raise ValueError(
            f"{path} has no columns of numbers beside {label}; give these, or a column features "
            "of lists."
        )
    notes.append(f"{path}: the features are the columns {some(names)}.")
    if aside:
        notes.append(f"{path}: the columns {some(aside)} are no numbers and left aside.")
    columns = [table.column(name) for name in names]
    columns = [c.cast("float32") if pa.types.is_boolean(c.type) else c for c in columns]
    return np.stack([column.to_numpy() for column in columns], axis=1)


def _lists(path, column) -> Num[np.ndarray, "n d"]:
    import pyarrow as pa

    kind = column.type
    fixed = pa.types.is_fixed_size_list(kind)
    if not (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise ValueError(f"{path}: the column features is {kind}; it must be lists of numbers.")
    if column.null_count:
        raise ValueError(
            f"{path}: {column.null_count} rows have no features (null); leave them out."
        )
    values = column.flatten()
    if not fixed:
        lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise ValueError(
                f"{path}: the lists of the column features have {lengths[0]} to {lengths[-1]} "
                "numbers; all must have as many."
            )
    return values.to_numpy(zero_copy_only=False).reshape(len(column), -1 if len(column) else 0)


def _values(path, table, name: str) -> Shaped[np.ndarray, "n"]:
    """The values of a column of text or numbers."""
    import pyarrow as pa

    column = table.column(name).combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        raise ValueError(
            f"{path}: {column.null_count} rows have no {name} (null); leave them out, or give one."
        )
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return np.array(column.to_pylist(), dtype=str)
    return column.to_numpy(zero_copy_only=False)


def _parted(path, features, labels, split: np.ndarray) -> dict[str, np.ndarray]:
    parts = {str(name) for name in np.unique(split)}
    if not parts <= set(PARTS):
        raise ValueError(
            f"{path}: the column split has {some(sorted(parts - set(PARTS)))}; it must be one of "
            f"{', '.join(PARTS)}."
        )
    found = {}
    for part in sorted(parts):
        rows = split == part
        found[f"{part}_features"], found[f"{part}_labels"] = features[rows], labels[rows]
    return found
