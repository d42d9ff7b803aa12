"""The tables that `experiments.reproduce` fills, and the paper's that each stands beside."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from experiments.configs.kinds import LISTED
from experiments.recipes import RECIPES
from experiments.studies import published, rates
from experiments.studies.published import IN_LARGE, IN_TABLE1, IN_TABLE5, IN_TABLE12, Column

NOTE_CIFAR = """\
Ours, held-out selection, and in brackets the paper's figure, for runs of the whole
protocol; columns of *short* hold runs of the short one. Changed runs stand in the tables below
alone."""

NOTE_SENTENCES = """\
Ours, held-out selection, and in brackets the paper's figure (100 less its accuracy).
The protocol is the paper's, with a held-out part besides; the encoder is not its BERT but the one
named in the rows below, and the learning rates are chosen for it by held-out errors on SST-2
at an imbalance of 50."""

NOTE_NETWORKS = """\
`vanilla` and `fine_tuned` are a linear layer on the encoder's features, before and
after its fine-tuning on the extra examples, trained on the imbalanced ones; all other rows are the
paper's network of three layers on the features after it, whose logits go through a tanh. Rows that
bring a head of their own have no tanh: cosines in `ldam`, `ldam_drw`, `cosine` and `mcw_ldam`, a
linear layer in `ib`, `ib_cb`, `ib_focal` and the three of MetaSAug, what the method makes in
`oltr`, `ncm`, `tau_norm`, `meta_centroids` and `meta_logistic`. The heads of the last two are
fitted to the meta set alone, on the features of stage 1's network. Two logits within a tanh's
bounds differ by at most 2, the logarithm of 7.4: at an imbalance above it `logit_adjustment` gives
all to the minority."""

NOTE_TWICE = """\
The paper's table has two rows named Combined + Whole; its figures here are those of the
second, which are those of its table 5."""

NOTE_FROZEN = """\
The same on the encoder as it is, without fine-tuning; `vanilla` is a linear layer on
its features. The paper's figures are of a BERT that is fine-tuned, but for its first row."""

NOTE_READINGS = """\
What the paper's text leaves open about its weight net, on the features and by the
protocol of its table 5: each reading at rates that the held-out part chooses, beside the network
that stage 2 starts from (`ce`) and the nearest class mean of the meta set alone
(`meta_centroids`)."""

NOTE_CLOUDS = """\
Ours, held-out selection, and in brackets the paper's figure (100 less its accuracy).
*By class* is the mean error of the classes. On a test set of 40 objects a class, as the paper
describes its own, it is the error itself; that the paper's two accuracies differ, it does not
explain."""

NOTE_POINTNET = """\
The same with PointNet, a lighter network, which a CPU trains. The paper's figures are of
PointNet++: what may be compared is the order of the rows and their differences."""

NOTE_LARGE = """\
Ours, held-out selection (of iNaturalist, whose validation list is the test part, the last epoch),
and in brackets the paper's figure. Every row is a linear head on the features of one frozen
network, that of a stage-1 file of others: rows that the paper trains as a whole network stand
beside it for their order alone. docs/large_sets.md has the commands, and what each row needs."""

NOTE_ENCODED = """\
The subsets, meta sets and held-out parts of table 1, seen as features of EfficientNet-Lite0,
trained on ImageNet and left as it is, of images enlarged to 128²: nothing is augmented, and every
network is a head on them. The weights have seen a million other photographs, so that errors stand
beside each other, not beside those of networks trained on the subset alone."""


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
    note: str = NOTE_CIFAR


def _rows(paper: Mapping[str, str]) -> dict[str, Row]:
    """Every recipe, beside the paper's rows that there are."""
    return {name: Row(name, {}, paper.get(name)) for name in RECIPES}


def _ot(paper: str | None, recipe: str = "otrw_paper", **choices) -> Row:
    """A row of OT with other choices."""
    return Row(recipe, {f"stage2.{recipe}.choices.{k}": v for k, v in choices.items()}, paper)


def _large(title: str, dataset: str, paper: str, **more: Row) -> Table:
    """A table of images by published lists: every head on features, beside the paper's rows."""
    theirs = published.rows_of(paper)
    known = {name: row for name, row in IN_LARGE.items() if row in theirs}
    rows = {name: row for name, row in _rows(known).items() if name != "bbn"}
    return Table(title, {**rows, **more}, dataset, LISTED[dataset], paper, NOTE_LARGE)


def _changed(
    table: Table, title: str, note: str, without: str = "", changes: dict | None = None
) -> Table:
    """A table of the same rows, perhaps without one, with changed configs."""
    rows = {
        name: row._replace(changes={**row.changes, **(changes or {})})
        for name, row in table.rows.items()
        if name != without
    }
    return table._replace(title=title, rows=rows, note=note)


_LINEAR = {"model.hidden": (), "model.tanh": False}
_TABLE5 = Table(
    "Imbalanced SST (the paper's table 5)",
    {
        "vanilla": Row("ce", {**_LINEAR, "encoder.fine_tuning.epochs": 0}, "Vanilla BERT"),
        "fine_tuned": Row("ce", _LINEAR, "Fine-tuned BERT"),
        **_rows(IN_TABLE5),
    },
    "sst2",
    50.0,
    "table5",
    f"{NOTE_SENTENCES} {NOTE_NETWORKS}",
)
_WEIGHT_NET = Table(
    "Imbalanced SST: readings of the weight net",
    {name: Row(recipe, changes) for name, (recipe, changes) in rates.rows().items()},
    "sst2",
    50.0,
    note=NOTE_READINGS,
)
_TABLE12 = Table(
    "Imbalanced ModelNet10 (the paper's table 12)",
    _rows(IN_TABLE12),
    "modelnet10",
    25.0,
    "table12",
    NOTE_CLOUDS,
)
_TABLE14 = Table(
    "ModelNet10: costs and measures (the paper's table 14)",
    {
        "label_whole": _ot("Weight vector + label + whole", cost="label"),
        "feature_whole": _ot("Weight vector + feature + whole", cost="feature"),
        "combined_prototype": _ot("Weight vector + combined + prototype", measure="prototype"),
        "combined_whole": _ot("Weight vector + combined + whole"),
        "net": _ot("Weight net + combined + whole", "otrw_net"),
    },
    "modelnet10",
    25.0,
    "table14",
    NOTE_CLOUDS,
)

TABLES = {
    "digits": Table("Long-tailed digits", {name: Row(name) for name in RECIPES}, "digits", 50.0),
    "table1": Table(
        "Long-tailed CIFAR (the paper's table 1)", _rows(IN_TABLE1), "cifar10", 100.0, "table1"
    ),
    "table2": Table(
        "Costs and measures (the paper's table 2)",
        {
            "label_prototype": _ot("Label + prototype", cost="label"),
            "feature_prototype": _ot("Feature + prototype", cost="feature"),
            "combined_prototype": _ot("Combined + prototype"),
            "combined_whole": _ot("Combined + whole", measure="whole"),
            "combined_random": _ot("Combined + random sample", measure="random_sample"),
            "from_scratch": _ot("Combined + prototype + from scratch", from_scratch=True),
        },
        "cifar100",
        200.0,
        "table2",
    ),
    "table3": _large("Places-LT (the paper's table 3)", "places_lt", "table3"),
    "table4": _large(
        "ImageNet-LT (the paper's table 4)",
        "imagenet_lt",
        "table4",
        reduced=_ot(
            "OT weight vector, 100 prototypes a step",
            measure="random_prototypes",
            measure_size=100,
        ),
    ),
    "table6": _large("iNaturalist 2018 (the paper's table 6)", "inaturalist2018", "table6"),
    "cifar_features": Table(
        "Long-tailed CIFAR on features of EfficientNet-Lite0",
        {name: Row(name) for name in RECIPES if name != "bbn"},  # No layer before the head.
        "cifar10_features",
        100.0,
        note=NOTE_ENCODED,
    ),
    "table5": _TABLE5,
    "table5_frozen": _changed(
        _TABLE5,
        "Imbalanced SST on an encoder as it is (beside the paper's table 5)",
        NOTE_FROZEN,
        without="fine_tuned",
        changes={"encoder.fine_tuning.epochs": 0},
    ),
    "table11": Table(
        "SST-2: costs and measures, with a weight net (the paper's table 11)",
        {
            "label_whole": _ot("Label + whole", "otrw_net", cost="label"),
            "feature_whole": _ot("Feature + whole", "otrw_net", cost="feature"),
            "combined_whole": _ot("Combined + whole", "otrw_net"),
            "combined_prototype": _ot("Combined + prototype", "otrw_net", measure="prototype"),
            "combined_random": _ot("Combined + random sample", "otrw_net", measure="random_sample"),
        },
        "sst2",
        50.0,
        "table11",
        f"{NOTE_SENTENCES} {NOTE_TWICE}",
    ),
    "table12": _TABLE12,
    "table12_pointnet": _changed(
        _TABLE12,
        "Imbalanced ModelNet10 with PointNet (beside the paper's table 12)",
        NOTE_POINTNET,
        changes={"model.name": "pointnet"},
    ),
    "table14": _TABLE14,
    "table14_pointnet": _changed(
        _TABLE14,
        "ModelNet10: costs and measures with PointNet (beside the paper's table 14)",
        NOTE_POINTNET,
        changes={"model.name": "pointnet"},
    ),
    "table15": Table(
        "SST-2: the meta set given, or drawn from the training set (the paper's table 15)",
        {
            "given": _ot("Additional meta set", "otrw_net"),
            "dynamic": _ot(
                "Dynamic meta set", "otrw_net", measure="dynamic", meta_features="refresh"
            ),
        },
        "sst2",
        50.0,
        "table15",
        NOTE_SENTENCES,
    ),
    "table17": Table(
        "SST-2: labels alone in the cost (the paper's table 17)",
        {
            "combined": _ot("Our best performance", "otrw_net"),
            "label": _ot("Label-aware", "otrw_net", cost="label"),
        },
        "sst2",
        50.0,
        "table17",
        NOTE_SENTENCES,
    ),
    "weight_net": _WEIGHT_NET,
    "weight_net_frozen": _changed(
        _WEIGHT_NET,
        "Imbalanced SST on an encoder as it is: readings of the weight net",
        NOTE_READINGS,
        changes={"encoder.fine_tuning.epochs": 0},
    ),
    "table18": Table(
        "ModelNet10: labels alone in the cost (the paper's table 18)",
        {
            "combined": _ot("Our best performance"),
            "label": _ot("Label-aware", cost="label"),
        },
        "modelnet10",
        25.0,
        "table18",
        NOTE_CLOUDS,
    ),
}
"""Name to table."""


def published_error(table: str, row: str, column: Column) -> float | None:
    """The paper's error in percent for a row of ours, where it has one."""
    name, of_paper = TABLES[table].paper, TABLES[table].rows[row].paper
    return published.error_of(name, of_paper, column) if name and of_paper else None


def published_columns(table: str) -> Iterator[Column]:
    """The columns of the paper's table."""
    paper = TABLES[table].paper
    yield from published.columns_of(paper) if paper else ()
