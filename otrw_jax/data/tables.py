"""Parquet files, read whole; needs pyarrow."""

import pathlib
from typing import Any

from otrw_jax.extras import brought_by


def read_parquet(path: pathlib.Path) -> Any:
    """Reads a file as a table of pyarrow, whose columns have names of their own.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
        ValueError: it is no Parquet file, or has two columns of one name.
    """
    with brought_by("parquet", __name__):
        from pyarrow import lib, parquet
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            check_columns(path, names)
            return file.read()
    except (lib.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is cut off, or no Parquet file: write it anew "
            f"({' '.join(str(error).split()).rstrip('.')[:160]})."
        ) from error


def check_columns(path: pathlib.Path, names: list[str]) -> None:
    """Raises a ValueError where two columns of a file have one name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has two columns {twice[0]}; rename or delete one.")
