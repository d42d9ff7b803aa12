"""The document of all tables: what the records of a folder say, and nothing else."""

import pathlib

import numpy as np

from experiments.documents.best_stages import best_stages
from experiments.documents.captions import epochs_of, grouped, origins
from experiments.documents.controls import controls_parts
from experiments.documents.findings import chosen, columns_with, errors, findings, protocol_of
from experiments.documents.markdown import spread
from experiments.documents.markdown import table as markdown_table
from experiments.documents.paired import same_epochs_rows
from experiments.documents.readings import parts as readings_parts
from experiments.recipes import RECIPES
from experiments.studies import published
from experiments.studies.published import Column
from experiments.studies.records import read
from experiments.studies.tables import TABLES, published_error

ABOUT = """# Results

Written by `python -m experiments.report` from the records in `results/`; nothing in it is typed by
hand. Errors are top-1 errors on the test set in percent, mean ± standard deviation over seeds, each
of which has a training subset, a start and an order of its own. *Held-out* is the epoch of the last
stage with the best balanced accuracy on held-out examples, which no training sees; *last* is the
last epoch; *best test* selects by the test set itself, as many published figures do, and is given
for comparison with those alone. *Protocol* is `paper`, that of the paper's text, or, on CIFAR,
`short`: 40 epochs of 128 examples with a cosine (`experiments/configs/cifar_lt.py`). *Many*,
*medium* and *few* are accuracies of classes of more than 100, of 20 to 100 and of fewer than 20
training examples; *difference* is the held-out column less the paper's figure; *s a run* are
seconds of training and evaluation, those of seeds trained together divided by their number, CPUs
and GPUs apart, without a first stage that came from another device. Errors that differ by less than
their spread order nothing. A cell is empty where nothing was run, where there are no such classes,
or where the paper has no such row."""

SAME_EPOCHS = """Second stages at equal budgets: a row less as many further epochs of plain
cross-entropy, on the whole network (`continued`) and, where the row trains the head alone, on the
head too (`continued_head`), seed by seed, held-out selection. *Shown* is what a paired t-test at
95 % shows of the error and of the few-shot accuracy: one seed shows nothing, and of twenty
comparisons without a difference about one shows one."""

ENCODED_TABLES = ("cifar_features",)
READINGS_TABLES = ("weight_net", "weight_net_frozen")


def document(folder: pathlib.Path) -> str:
    """The whole document, from the records of a folder."""
    parts = [ABOUT]
    for name, table in TABLES.items():
        records = read(folder / f"{name}.jsonl")
        if records or table.paper:
            parts.append(f"## {table.title}")
        if table.paper:
            parts += [table.note, overview(name, records), *findings(name, records)]
        if name in ENCODED_TABLES and records:
            parts.append(table.note)
        if name == "table1" or name in ENCODED_TABLES:
            parts += best_stages(name, records)
        if name in READINGS_TABLES and records:
            parts += [table.note, *readings_parts(records)]
        parts += _table_parts(name, records)
    parts += controls_parts(read(folder / "controls.jsonl"))
    return "\n\n".join(parts) + "\n"


def overview(name: str, records: list[dict]) -> str:
    """Every row and column of the paper's table, empty where nothing was run as it is.

    The paper's rows that none of ours stands for are quoted at the end.
    """
    columns = columns_with(name, records)
    rows = []
    for row, about in TABLES[name].rows.items():
        cells = []
        for column in columns:
            paper = published_error(name, row, column)
            ours = spread(errors(records, row, column))
            cells.append(f"{ours} ({paper:.2f})" if paper is not None else ours)
        if about.paper or any(cells):
            rows.append([f"`{row}`", *(cell.strip() for cell in cells)])
    paper, ours = TABLES[name].paper, {about.paper for about in TABLES[name].rows.values()}
    for row in published.rows_of(paper) if paper else []:
        if paper and row not in ours:
            quoted = [published.error_of(paper, row, column) for column in columns]
            figures = ("" if error is None else f"({error:.2f})" for error in quoted)
            rows.append([f"{row}, quoted only", *figures])
    return markdown_table(["row", *(column.title for column in columns)], rows)


def _table_parts(name: str, records: list[dict]) -> list[str]:
    """A table for each data set and imbalance factor."""
    parts, order = [], {row: at for at, row in enumerate(TABLES[name].rows)}
    for (dataset, factor), group in grouped(records, "dataset", "imbalance_factor"):
        rows = _rows(name, group)
        parts += [
            f"### {dataset}, imbalance factor {factor:g}",
            origins(group),
            markdown_table(
                [
                    "row",
                    "protocol",
                    "epochs",
                    "changed",
                    "held-out",
                    "many",
                    "medium",
                    "few",
                    "last",
                    "best test",
                    "seeds",
                    "paper",
                    "difference",
                    "s a run",
                ],
                rows,
            ),
        ]
        known = [record for record in group if record["row"] in order]
        known.sort(key=lambda r: (order[r["row"]], protocol_of(r)))
        if less := same_epochs_rows(known):
            header = ["row", "less", "protocol", "error", "few", "shown", "seeds"]
            parts += [SAME_EPOCHS, markdown_table(header, less)]
    return parts


def _rows(name: str, records: list[dict]) -> list[list[str]]:
    order = {row: at for at, row in enumerate(TABLES[name].rows)}
    known = [record for record in records if record["row"] in order]
    for record in known:
        config = {k: v for k, v in record["config"].items() if k not in ("seed", "subset_seed")}
        record["setting"] = repr([protocol_of(record), sorted(config.items())])
    known.sort(key=lambda r: (order[r["row"]], r["setting"], r["seed"]))
    rows = []
    for (row, _), group in grouped(known, "row", "setting"):
        one = group[0]
        error = [chosen(record)["error"] for record in group]
        at = Column(one["dataset"], one["imbalance_factor"])
        paper = published_error(name, row, at)
        rows.append(
            [
                _title(name, one),
                protocol_of(one),
                epochs_of(one["config"], one["recipe"]),
                ", ".join(f"{k}={v}" for k, v in one["changes"].items()),
                spread(error),
                *(
                    spread([chosen(r).get(f"{shot}_accuracy") for r in group], 1, False)
                    for shot in ("many", "medium", "few")
                ),
                spread(_values(group, "last", "error")),
                spread(_values(group, "best_test", "error")),
                str(len(group)),
                "" if paper is None else f"{paper:.2f}",
                "" if paper is None else f"{np.mean(error) - paper:+.2f}",
                seconds_of_runs(group),
            ]
        )
    return rows


def seconds_of_runs(records: list[dict]) -> str:
    """Mean seconds of a run, for each platform by itself where runs are of several.

    A first stage that came from another device does not count.
    """
    spent: dict[str, list[float]] = {}
    for record in records:
        elsewhere = sum(record["seconds_of"][stage] for stage in record.get("device_of", ()))
        seconds = (record["seconds"] - elsewhere) / record["seeds_together"]
        spent.setdefault(record["device"].split(":")[0], []).append(seconds)
    means = {platform: f"{np.mean(seconds):.0f}" for platform, seconds in sorted(spent.items())}
    if len(means) == 1:
        return next(iter(means.values()))
    return ", ".join(f"{platform} {mean}" for platform, mean in means.items())


def _title(name: str, record: dict) -> str:
    """A row's name, what its recipe is, and the network or the encoder where it is to be named."""
    title, config = f"`{record['row']}`", record["config"]
    if not any("choices" in change for change in TABLES[name].rows[record["row"]].changes):
        title += f": {RECIPES[record['recipe']].about}"
    if "encoder" in record:
        epochs = config.get("encoder.fine_tuning.epochs")
        tuned = "" if epochs is None else f", {epochs} epochs of fine-tuning"
        return f"{title} ({record['encoder']}{tuned})"
    return f"{title} ({config['model.name']})" if record["dataset"] == "modelnet10" else title


def _values(records: list[dict], which: str, name: str) -> list[float | None]:
    return [(record["results"][which] or {}).get(name) for record in records]
