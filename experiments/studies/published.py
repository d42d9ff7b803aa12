"""The figures of the paper's tables, as errors in percent, and the recipes that they are of."""

import functools
import json
import pathlib
from typing import NamedTuple

from experiments.configs.kinds import LISTED

PAPER = pathlib.Path(__file__).parents[2] / "results" / "paper.json"


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
    "ce": "Fine-tuned BERT + CE",
    "proportion": "Proportion (inverse class frequency)",
    "ldam_drw": "LDAM-DRW",
    "hu": "Hu et al.",
    "logit_adjustment": "Logit adjustment",
    "otrw_net": "OT weight net",
}
"""Recipe to its row in the paper's table 5."""

IN_TABLE12 = {
    "ce": "PointNet++",
    "focal": "Focal",
    "ldam_drw": "LDAM-DRW",
    "logit_adjustment": "Logit adjustment",
    "otrw_paper": "OT weight vector",
}
"""Recipe to its row in the paper's table 12."""


IN_LARGE = {
    "ce": "CE",
    "focal": "Focal",
    "cb_ce": "CB-CE",
    "ldam": "LDAM",
    "ldam_drw": "LDAM-DRW",
    "oltr": "OLTR",
    "crt": "cRT",
    "lws": "LWS",
    "mcw_ce": "Meta-class-weight CE",
    "balanced_meta_softmax": "Balanced meta-softmax",
    "disalign": "DisAlign",
    "metasaug_ce": "MetaSAug CE",
    "otrw_paper": "OT weight vector",
    "otrw_released": "OT weight vector",
    "otrw_global": "OT weight vector",
    "otrw_global_sampling": "OT weight vector",
}
"""Recipe to its row in the paper's tables 3, 4 and 6, where these have it."""


class Column(NamedTuple):
    """A column of a table: what it was run on, and what is measured there.

    Attributes:
        dataset: such as "cifar10".
        imbalance_factor: largest over smallest class.
        of_classes: whether it is the mean over classes of their errors.
        protocol: of the runs; the paper's figures are of "paper".
    """

    dataset: str
    imbalance_factor: float
    of_classes: bool = False
    protocol: str = "paper"

    @property
    def title(self) -> str:
        """As the header has it."""
        kind = ", by class" if self.of_classes else ""
        kind += f", {self.protocol}" if self.protocol != "paper" else ""
        return f"{self.dataset}, {self.imbalance_factor:g}{kind}"


def columns_of(table: str) -> list[Column]:
    """The columns of one of the paper's tables."""
    paper = _paper()[table]
    return [_column(text) for text in paper.get("columns") or [paper["dataset"]]]


def rows_of(table: str) -> list[str]:
    """The rows of one of the paper's tables."""
    return list(_paper()[table]["rows"])


def error_of(table: str, row: str, column: Column) -> float | None:
    """A figure of the paper as an error, or None where it has none."""
    paper, columns = _paper()[table], columns_of(table)
    column = column._replace(imbalance_factor=round(column.imbalance_factor, 2))
    values = paper["rows"].get(row)
    if values is None or column not in columns:
        return None
    value = values[columns.index(column)]
    mean = value[0] if isinstance(value, list) else value
    if mean is not None and "accuracy" in paper["metric"]:
        return 100 - mean
    return mean


def _column(text: str) -> Column:
    """A column, of `cifar10_lt/100`, `sst2/1000:20`, `modelnet10/4:100 CA` or `places_lt`."""
    if text in LISTED:
        return Column(text, LISTED[text])
    dataset, _, setting = text.partition("/")
    setting, _, metric = setting.partition(" ")
    sizes = [float(size) for size in setting.split(":")]
    factor = sizes[0] if len(sizes) == 1 else max(sizes) / min(sizes)
    return Column(dataset.removesuffix("_lt"), round(factor, 2), metric == "CA")


@functools.cache
def _paper() -> dict:
    return json.loads(PAPER.read_text())
