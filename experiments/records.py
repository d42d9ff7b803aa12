"""Records of runs that are kept with the project: one JSON object a line."""

import json
import os
import pathlib


def append(path: str | pathlib.Path, record: dict) -> None:
    """Adds a record at the end of a file, on the disk before it returns."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record, separators=(",", ":")) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: str | pathlib.Path) -> list[dict]:
    """The records of a file, in order; none where there is no file.

    Raises:
        ValueError: a line is not a record.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}, is not a record ({error.msg}); delete the line."
            ) from error
    return records
