"""What is to be run, in the order of its value: the cells of all tables."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from experiments.configs.kinds import LISTED
from experiments.studies.rows import protocols_of
from experiments.studies.tables import TABLES, published_columns


class Cell(NamedTuple):
    """A row of a table in one setting, and the seeds that are wanted of it."""

    table: str
    row: str
    dataset: str
    factor: float
    protocol: str
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        seeds = ", ".join(map(str, self.seeds))
        return (
            f"{self.table}, {self.dataset} at {self.factor:g}, {self.protocol}: {self.row}, "
            f"seed{'s' if len(self.seeds) > 1 else ''} {seeds}"
        )


class Block(NamedTuple):
    """Rows of a table in one setting, with their seeds."""

    table: str
    dataset: str
    factor: float
    rows: tuple[str, ...]
    seeds: tuple[int, ...]


# On kept features of a frozen backbone: a minute or two each.
HEADS = (
    *("otrw_global", "otrw_global_sampling", "cb", "crt", "lws", "tau_norm", "ncm", "disalign"),
    *("logit_adjustment", "ot_correction", "meta_centroids", "meta_logistic"),
    "balanced_meta_softmax",
)
# Second stages that pass through the network in every step.
WHOLE = ("otrw_released", "otrw_paper", "otrw_net", "oltr")
ONE_STAGE = (
    *("ldam_drw", "balanced_softmax", "cb_ce", "mcw_ce", "metasaug_ce", "ib", "bbn", "l2rw"),
)

FIRST = (
    Block("table1", "cifar10", 100.0, ("ce", *HEADS), (0, 1, 2)),
    Block("table1", "cifar100", 100.0, ("ce", *HEADS), (0, 1)),
    Block("table1", "cifar10", 100.0, WHOLE, (0,)),
    Block("table1", "cifar10", 100.0, ONE_STAGE, (0,)),
    Block("table1", "cifar10", 100.0, WHOLE, (0, 1, 2)),
    Block("table1", "cifar100", 100.0, WHOLE, (0, 1)),
    Block("table1", "cifar10", 200.0, ("ce", *HEADS), (0,)),
    Block("table1", "cifar100", 200.0, ("ce", *HEADS), (0,)),
    Block("table2", "cifar100", 200.0, tuple(TABLES["table2"].rows), (0,)),
    Block("table1", "cifar10", 100.0, ("ce", *HEADS), (3, 4)),
    Block("table1", "cifar100", 100.0, ("ce", *HEADS), (2,)),
    Block("table1", "cifar10", 50.0, ("ce", *HEADS), (0,)),
    Block("table1", "cifar100", 50.0, ("ce", *HEADS), (0,)),
    Block("table1", "cifar10", 20.0, ("ce", *HEADS), (0,)),
    Block("table1", "cifar100", 20.0, ("ce", *HEADS), (0,)),
)
"""Long-tailed CIFAR, by value; each under every protocol, as `agenda` is told."""

SEEDS = (0, 1, 2)
"""Of all other cells."""


def agenda(protocols: Sequence[str]) -> Iterator[Cell]:
    """The cells, the most valuable first; some seeds come twice.

    Tables of images that are the user's are left out, since each run needs their folder: they are
    run by name.

    Args:
        protocols: in the order in which long-tailed CIFAR is to be run.
    """
    for protocol in protocols:
        for block in FIRST:
            for row in block.rows:
                yield Cell(block.table, row, block.dataset, block.factor, protocol, block.seeds)
    for name, table in TABLES.items():
        if table.dataset in LISTED:
            continue
        settings = [(c.dataset, c.imbalance_factor) for c in published_columns(name)]
        for dataset, factor in dict.fromkeys(settings or [(table.dataset, table.imbalance_factor)]):
            for protocol in protocols:
                if protocol in protocols_of(dataset):
                    for row in table.rows:
                        yield Cell(name, row, dataset, factor, protocol, SEEDS)
