"""Draws the paper's figures from run directories.

python -m experiments.figures --workdir=runs/digits
python -m experiments.figures --workdir=runs/pictures --compare=runs/one,runs/other
"""

import pathlib

from absl import flags

from experiments.cli import DATA_DIR, WORKDIR, run_app
from experiments.configs.user_paths import expanded
from experiments.pictures.drawing import compare, draw

COMPARE = flags.DEFINE_list("compare", [], "Run directories that are drawn side by side.")


def main(argv: list[str]) -> None:
    """Draws every figure that the run, or the runs to compare, have the data for."""
    del argv
    workdir = pathlib.Path(WORKDIR.value)
    others = [pathlib.Path(expanded(path, "--compare")) for path in COMPARE.value if path]
    data_dir = DATA_DIR.value or ""
    drawn = compare(others, workdir, data_dir) if others else draw(workdir, data_dir)
    for path in drawn:
        print(f"written: {path}")


if __name__ == "__main__":
    run_app(main, "workdir")
