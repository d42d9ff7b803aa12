"""Cells that have no record: found, run, recorded; and what of each is still to be done."""

import functools
import math
import pathlib
from typing import NamedTuple

from ml_collections import ConfigDict

from experiments.program.encoding import encoder_name
from experiments.runs.identity import HOW
from experiments.studies.agenda import Cell
from experiments.studies.records import append, key_of, read
from experiments.studies.rows import (
    first_stage_of,
    resolved,
    row_config,
    run_row,
    takes_over_cross_entropy,
)
from experiments.studies.tables import TABLES

FAILURES = "failures.jsonl"


class Folders(NamedTuple):
    """Where records and run directories are."""

    records: pathlib.Path
    runs: pathlib.Path

    @property
    def networks(self) -> pathlib.Path:
        """The network files, among the records."""
        return self.records / "networks"


class Filler:
    """The records of a folder, and what fills it."""

    def __init__(self, folders: Folders, changes: dict):
        """Reads the records.

        Args:
            folders: of records and runs.
            changes: fields of every config, by name.
        """
        self.folders, self._changes = folders, changes
        self.records = {name: read(folders.records / f"{name}.jsonl") for name in TABLES}
        self._found: dict[tuple, dict[tuple, dict]] = {}
        for records in self.records.values():
            for record in records:
                self._note(record)
        self.config = functools.cache(self._config)
        self._resolved = functools.cache(lambda cell: resolved(self.config(cell), 0))
        self._key = functools.cache(lambda cell: key_of(self._resolved(cell)))

    def left(self, cell: Cell) -> list[int]:
        """The seeds of a cell that its table has no record of."""
        key = self._key(cell)
        return [s for s in cell.seeds if cell[:2] not in self._found.get((key, s), {})]

    def copy(self, cell: Cell) -> None:
        """Records what another table or row has a record of, as this cell's as well."""
        for seed in self.left(cell):
            for record in self._found.get((self._key(cell), seed), {}).values():
                # Rates are chosen by the error on the held-out part, which older records lack.
                if record["table"] != cell.table and "held_out_error" in record:
                    self._append(cell, record)
                    print(f"{cell.row}, seed {seed}: the run recorded in {record['table']}")
                    break

    def run(self, cell: Cell, until: float = math.inf) -> None:
        """Runs what a cell has left, and records it.

        Raises:
            OutOfTimeError: the time `until`, of `time.monotonic`, has come.
        """
        seeds = self.left(cell)
        config, workdir = self.config(cell), self.workdir(cell)
        for record in run_row(config, workdir, cell.row, seeds, self.folders.networks, until):
            self._append(cell, record)
            path = self.folders.records / f"{cell.table}.jsonl"
            print(f"{cell.row}, seed {record['seed']}: recorded in {path}", flush=True)

    def fields(self, cell: Cell, seed: int) -> dict:
        """The resolved config of a seed, flat."""
        return self._resolved(cell) | {"seed": seed, "subset_seed": seed}

    def workdir(self, cell: Cell) -> pathlib.Path:
        """The folder of a setting's runs."""
        protocol = "" if cell.protocol == "paper" else f"_{cell.protocol}"
        return self.folders.runs / cell.table / f"{cell.dataset}_if{cell.factor:g}{protocol}"

    def run_directory(self, cell: Cell, seed: int) -> pathlib.Path:
        """The run directory of a seed."""
        return self.workdir(cell) / cell.row / f"seed_{seed}"

    def first_stage(self, cell: Cell, seed: int) -> pathlib.Path | str:
        """The finished first stage that a run would take over; "" where there is none."""
        config = ConfigDict(self.config(cell))
        if not takes_over_cross_entropy(config) and config.recipe != "ce":
            return ""
        config.recipe = "ce"
        return first_stage_of(self.folders.runs, self.folders.networks, config, seed)

    def about(self, cell: Cell) -> dict:
        """What a record says of the cell that it belongs to."""
        told = {name: value for name, value in self._changes.items() if name not in HOW}
        if "encoder.folder" in told:
            told["encoder.folder"] = encoder_name(self.config(cell).encoder)
        return {
            "table": cell.table,
            "row": cell.row,
            "protocol": cell.protocol,
            "changes": told,
        }

    def _config(self, cell: Cell) -> ConfigDict:
        row = TABLES[cell.table].rows[cell.row]
        return row_config(row, cell.dataset, cell.factor, self._changes, cell.protocol)

    def _append(self, cell: Cell, record: dict) -> None:
        about = self.about(cell)
        record = about | record | about
        append(self.folders.records / f"{cell.table}.jsonl", record)
        self.records[cell.table].append(record)
        self._note(record)

    def _note(self, record: dict) -> None:
        where = key_of(record["config"]), record["seed"]
        self._found.setdefault(where, {})[record["table"], record["row"]] = record
