"""The tables that `experiments.reproduce` fills: their rows, and where the paper has a figure."""

import functools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from experiments.recipes import RECIPES

PAPER = pathlib.Path(__file__).parent.parent / "results" / "paper.json"


class Row(NamedTuple):
    """A row: its recipe, what its config has different, and its name in the paper's table."""

    recipe: str
    changes: Mapping[str, Any] = {}
    paper: str | None = None


class Table(NamedTuple):
    """A table: title, rows, what it is run on by default, the paper's table that it is beside."""

    title: str
    rows: Mapping[str, Row]
    dataset: str
    imbalance_factor: float
    paper: str | None = None


IN_TABLE1 = {
    "ce": "CE",
    "focal": "Focal",
    "cb_ce": "CB-CE",
    "cb_focal": "CB-Focal",
    "ldam": "LDAM",
    "ldam_drw": "LDAM-DRW",
    "l2rw": "L2RW",
    "mwn": "Meta-Weight-Net",
    "mcw_ce": "Meta-class-weight CE",
    "mcw_focal": "Meta-class-weight Focal",
    "mcw_ldam": "Meta-class-weight LDAM",
    "metasaug_ce": "MetaSAug CE",
    "metasaug_focal": "MetaSAug Focal",
    "metasaug_ldam": "MetaSAug LDAM",
    "ib": "IB",
    "ib_cb": "IB + CB",
    "ib_focal": "IB + Focal",
    "bbn": "BBN",
    "otrw_paper": "OT weight vector",
    "otrw_released": "OT weight vector",
    "otrw_global": "OT weight vector",
    "otrw_global_sampling": "OT weight vector",
}
"""Recipe to its row in the paper's table 1; every reading of the method stands beside its one."""


def _ablation(paper: str, **changes) -> Row:
    return Row(
        "otrw_paper", {f"stage2.otrw_paper.choices.{k}": v for k, v in changes.items()}, paper
    )


TABLES = {
    "digits": Table("Long-tailed digits", {name: Row(name) for name in RECIPES}, "digits", 50.0),
    "table1": Table(
        "Long-tailed CIFAR (the paper's table 1)",
        {name: Row(name, {}, IN_TABLE1.get(name)) for name in RECIPES},
        "cifar10",
        100.0,
        "table1",
    ),
    "table2": Table(
        "Costs and measures (the paper's table 2)",
        {
            "label_prototype": _ablation("Label + prototype", cost="label"),
            "feature_prototype": _ablation("Feature + prototype", cost="feature"),
            "combined_prototype": _ablation("Combined + prototype"),
            "combined_whole": _ablation("Combined + whole", measure="whole"),
            "combined_random": _ablation("Combined + random sample", measure="random_sample"),
            "from_scratch": _ablation("Combined + prototype + from scratch", from_scratch=True),
        },
        "cifar100",
        200.0,
        "table2",
    ),
}
"""Name to table."""


def published(table: str, row: str, dataset: str, imbalance_factor: float) -> float | None:
    """The paper's error in percent for a row of ours, where it has one."""
    paper = _paper().get(TABLES[table].paper, {})
    values = paper.get("rows", {}).get(TABLES[table].rows[row].paper)
    column = f"{dataset}_lt/{imbalance_factor:g}"
    columns = paper.get("columns", [paper.get("dataset")])
    if values is None or column not in columns:
        return None
    return values[columns.index(column)]


def columns_of(table: str) -> Iterator[tuple[str, float]]:
    """Data sets and imbalance factors of the paper's table."""
    paper = _paper()[TABLES[table].paper]
    for column in paper.get("columns", [paper.get("dataset")]):
        dataset, factor = column.split("_lt/")
        yield dataset, float(factor)


@functools.cache
def _paper() -> dict:
    return json.loads(PAPER.read_text())
