"""Example weights of features in files, or of a finished run, for other programs.

python -m experiments.weights --folder=DIR --table=weights.csv
python -m experiments.weights --workdir=runs/mine --table=weights.parquet

Of a folder or file of features (docs/your_features.md) the weights are found by optimal transport
to its meta part; without one, to so many examples of each class of the validation part, or of the
training part, which then have no weight of their own and are left out of the table.
"""

import pathlib

import numpy as np
from absl import flags

from experiments.cli import CHECKPOINT, DATA_DIR, TABLE, WORKDIR, define_path, run_app
from experiments.program.features import weights_of_files
from experiments.runs.learned_weights import export_weights, write_weights
from experiments.runs.restoring import restore

FOLDER = define_path("folder", None, "Folder or file of features; or give a --workdir.")
METHOD = flags.DEFINE_enum("method", "closed_form", ["closed_form", "learned"], "How.")
COST = flags.DEFINE_enum("cost", "combined", ["combined", "feature", "label"], "Of an example.")
MEASURE = flags.DEFINE_enum("measure", "prototype", ["prototype", "whole"], "Of the meta set.")
EPSILON = flags.DEFINE_float("epsilon", 0.1, "Entropic regularisation.", lower_bound=0)
META_PER_CLASS = flags.DEFINE_integer("meta_per_class", 10, "Without a meta part.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of the meta set, and of learned weights.", lower_bound=0)
OF_FOLDERS = (METHOD, COST, MEASURE, EPSILON, META_PER_CLASS, SEED)
OF_RUNS = (CHECKPOINT, DATA_DIR)


def main(argv: list[str]) -> None:
    """Writes the table, and says of what and how the weights spread."""
    del argv
    if TABLE.value is None:
        raise ValueError("--table is missing; name a file, .csv or .parquet.")
    path = pathlib.Path(TABLE.value)
    if (FOLDER.value is None) == (WORKDIR.value is None):
        raise ValueError("give one of --folder, of features, and --workdir, of a run.")
    for flag in OF_FOLDERS if WORKDIR.value else OF_RUNS:
        if flag.present:
            way = "a run has its own" if WORKDIR.value else "it goes with --workdir"
            raise ValueError(f"--{flag.name}={flag.value}: {way}; leave it out.")
    if WORKDIR.value:
        export_weights(path, restore(WORKDIR.value, CHECKPOINT.value, DATA_DIR.value or ""))
        print(f"written: {path}")
        return
    options = {
        "method": METHOD.value,
        "cost": COST.value,
        "measure": MEASURE.value,
        "epsilon": EPSILON.value,
    }
    found = weights_of_files(FOLDER.value, META_PER_CLASS.value, SEED.value, **options)
    write_weights(path, found.ids, found.names, found.weights)
    print("\n".join(found.notes))
    shares = np.bincount(np.unique(found.names, return_inverse=True)[1], found.weights)
    shares = 100 * shares / shares.sum()
    print(
        f"{len(found.ids)} weights of mean one, from {found.weights.min():.3g} to "
        f"{found.weights.max():.3g}; a class has {shares.min():.2f} to {shares.max():.2f} % of "
        f"their sum\nwritten: {path}"
    )


if __name__ == "__main__":
    run_app(main)
