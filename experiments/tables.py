"""The tables that `experiments.reproduce` fills: their rows, and where the paper has a figure."""

import functools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from experiments.recipes import RECIPES

PAPER = pathlib.Path(__file__).parent.parent / "results" / "paper.json"


WHOLE = """Ours, held-out selection, and in brackets the paper's figure, for runs of the whole
protocol. Shortened or changed runs stand in the tables below alone."""

FROZEN = """Ours, held-out selection, and in brackets the paper's figure (100 less its accuracy).
They are not of one protocol: ours are on features of a frozen encoder, named in the rows below,
that is not fine-tuned, with learning rates of its own; the paper's are on BERT, fine-tuned on the
extra examples but for its first row, which `ce` stands beside. `meta_centroids` and `meta_logistic`
see nothing but the meta set."""


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
    note: str = WHOLE


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


IN_TABLE5 = {
    "ce": "Vanilla BERT",
    "proportion": "Proportion (inverse class frequency)",
    "ldam_drw": "LDAM-DRW",
    "hu": "Hu et al.",
    "logit_adjusted": "Logit adjustment",
    "otrw_net": "OT weight net",
}
"""Recipe to its row in the paper's table 5."""


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
    "table5": Table(
        "Imbalanced SST (the paper's table 5)",
        {name: Row(name, {}, IN_TABLE5.get(name)) for name in RECIPES},
        "sst2",
        50.0,
        "table5",
        FROZEN,
    ),
}
"""Name to table."""


def published(table: str, row: str, dataset: str, imbalance_factor: float) -> float | None:
    """The paper's error in percent for a row of ours, where it has one."""
    paper = _paper().get(TABLES[table].paper, {})
    values = paper.get("rows", {}).get(TABLES[table].rows[row].paper)
    columns = [_setting(column) for column in _columns(paper)]
    at = (dataset, round(imbalance_factor, 2))
    if values is None or at not in columns:
        return None
    value = values[columns.index(at)]
    mean = value[0] if isinstance(value, list) else value
    if mean is not None and paper["metric"].startswith("accuracy"):
        return 100 - mean
    return mean


def columns_of(table: str) -> Iterator[tuple[str, float]]:
    """Data sets and imbalance factors of the paper's table."""
    yield from map(_setting, _columns(_paper()[TABLES[table].paper]))


def _columns(paper: dict) -> list[str]:
    return paper["columns"] if "columns" in paper else [paper["dataset"]] if paper else []


def _setting(column: str) -> tuple[str, float]:
    """Data set and imbalance factor, of `cifar10_lt/100` or `sst2/1000:20`."""
    dataset, _, setting = column.partition("/")
    most, _, fewest = setting.partition(":")
    return dataset.removesuffix("_lt"), round(float(most) / float(fewest or 1), 2)


@functools.cache
def _paper() -> dict:
    return json.loads(PAPER.read_text())
