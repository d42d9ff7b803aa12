"""Runs rows of a table over several seeds, and appends a record of each run.

python -m experiments.reproduce table1 --dataset=cifar10 --imbalance_factor=100 --seeds=0,1,2 \\
    --recipes=ce,ldam_drw,otrw_released --set=stage1.epochs=30 \\
    --set="stage1.optimizer.milestones=(24,27)"
python -m experiments.reproduce all --minutes=60

Runs that are recorded are skipped, also those that another table has; interrupted ones go on.
Recipes that begin with cross-entropy share its first stage, or start from the network files in
`networks` beside the records. With `all` the cells that have no record are run in the order of
their value (`experiments/studies/agenda.py`), as far as the time goes, but for those of the three
large sets; a stop at any moment loses an epoch at most. `experiments.report` makes the document of
the records.
"""

import ast
import pathlib

import jax
from absl import flags

from experiments.cli import DATASET, RECORDS, SEEDS, WORKDIR, run_app, seeds
from experiments.configs.cifar_lt import PROTOCOLS
from experiments.studies.agenda import Cell, agenda
from experiments.studies.filling import Filler, Folders
from experiments.studies.tables import TABLES
from experiments.studies.within_minutes import fill
from otrw_jax.checks import nearest

FACTOR = flags.DEFINE_float("imbalance_factor", None, "Largest over smallest; that of the table.")
ROWS = flags.DEFINE_list("recipes", [], "Rows of the table; all by default.")
PROTOCOL = flags.DEFINE_enum(
    "protocol", None, PROTOCOLS, "Of CIFAR; by default paper, and with `all` both."
)
MINUTES = flags.DEFINE_float("minutes", None, "How long `all` goes on.", lower_bound=0)
SET = flags.DEFINE_multi_string("set", [], "A field of the config, as stage1.epochs=30.")


def main(argv: list[str]) -> None:
    """Runs what is not yet recorded."""
    if len(argv) != 2 or argv[1] not in [*TABLES, "all"]:
        raise ValueError(f"name one table: {', '.join(TABLES)}; or all.")
    if (argv[1] == "all") != (MINUTES.value is not None):
        raise ValueError("--minutes goes with `all`, and `all` with --minutes.")
    changes = dict(parse_change(text) for text in SET.value)
    folders = Folders(pathlib.Path(RECORDS.value), pathlib.Path(WORKDIR.value or "runs"))
    if MINUTES.value is not None:
        fill(chosen_cells(), Filler(folders, changes), MINUTES.value)
        return
    name, table, wanted = argv[1], TABLES[argv[1]], tuple(seeds(5))
    _check_rows(name, table.rows)
    dataset, factor = DATASET.value or table.dataset, FACTOR.value or table.imbalance_factor
    filler = Filler(folders, changes)
    for row in ROWS.value or table.rows:
        cell = Cell(name, row, dataset, factor, PROTOCOL.value or "paper", wanted)
        filler.copy(cell)
        if not filler.left(cell):
            print(f"{row}: all of {len(wanted)} seeds are recorded.")
            continue
        filler.run(cell)


def chosen_cells() -> list[Cell]:
    """The cells of the agenda that the flags let through.

    The protocol that this device can do comes first: `paper` on an accelerator, else `short`.
    """
    _check_rows("all", dict.fromkeys(row for table in TABLES.values() for row in table.rows))
    quickly = jax.default_backend() == "cpu"
    protocols = [PROTOCOL.value] if PROTOCOL.value else sorted(PROTOCOLS, reverse=quickly)
    return [
        cell._replace(seeds=tuple(seeds(0))) if SEEDS.value else cell
        for cell in agenda(protocols)
        if DATASET.value in (None, cell.dataset)
        and FACTOR.value in (None, cell.factor)
        and (not ROWS.value or cell.row in ROWS.value)
    ]


def _check_rows(name: str, rows) -> None:
    for row in ROWS.value:
        if row not in rows:
            near = nearest(row, rows)
            raise ValueError(f"{name} has no row {row!r}; did you mean {near!r}?")


def parse_change(text: str) -> tuple[str, object]:
    """A field and its value, of `name=value`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set={text!r} must be of the form name=value.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    run_app(main, arguments=True)
