"""Predicts the classes of image files with the network of a run on a folder of images.

python -m experiments.predict --workdir=runs/mine photo.jpg another.png
python -m experiments.predict --workdir=runs/mine --table=predictions.csv FOLDER

The table `file,class,probability` goes to the standard output, or to a file; all else that is said
goes to the standard error.
"""

import contextlib
import csv
import pathlib
import sys
from typing import TextIO

from absl import flags

from experiments.cli import CHECKPOINT, DATA_DIR, TABLE, WORKDIR, run_app
from experiments.runs.predictions import Predictions, predictions
from experiments.runs.restoring import restore
from otrw_jax.files import replacing

MAX_EXCLUDED = flags.DEFINE_integer(
    "max_excluded", 0, "So many files may be left out that cannot be read.", lower_bound=0
)


def main(argv: list[str]) -> None:
    """Writes the table."""
    if not argv[1:]:
        raise ValueError("no file is given; name image files, or a folder of them.")
    if TABLE.value and TABLE.value.endswith(".parquet"):
        raise ValueError(f"--table={TABLE.value}: predictions are written as CSV; name a .csv.")
    with contextlib.redirect_stdout(sys.stderr):
        restored = restore(pathlib.Path(WORKDIR.value), CHECKPOINT.value, DATA_DIR.value or "")
        made = predictions(restored, argv[1:], MAX_EXCLUDED.value)
    for line in made.excluded:
        print(f"left out: {line}", file=sys.stderr)
    if TABLE.value is None:
        write(sys.stdout, made)
        return
    path = pathlib.Path(TABLE.value)
    with replacing(path) as draft, draft.open("w", newline="") as file:
        write(file, made)
    print(f"written: {path}, {len(made.found)} files")


def write(file: TextIO, made: Predictions) -> None:
    """Writes a row a file."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["file", "class", "probability"])
    writer.writerows((row.file, row.name, f"{row.probability:.6f}") for row in made.found)


if __name__ == "__main__":
    run_app(main, "workdir", arguments=True)
