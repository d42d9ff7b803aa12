"""What a table's records say beside the paper's figures, in sentences made of them."""

from typing import Any

import numpy as np

from experiments.documents.markdown import spread
from experiments.studies.published import Column
from experiments.studies.tables import TABLES, published_columns, published_error

# Rows of which a sentence is told wherever both have errors: the first against the second.
PAIRS = (
    ("otrw_net", "ce"),
    ("otrw_net", "proportion"),
    ("otrw_net", "logit_adjustment"),
    ("otrw_net", "meta_logistic"),
    ("otrw_net", "meta_centroids"),
    ("otrw_paper", "ce"),
    ("otrw_paper", "logit_adjustment"),
    ("otrw_paper", "meta_logistic"),
    ("otrw_paper", "meta_centroids"),
    ("otrw_global", "ce"),
    ("otrw_global", "proportion"),
    ("otrw_global", "meta_centroids"),
    ("combined_whole", "label_whole"),
    ("combined_whole", "feature_whole"),
    ("combined_whole", "combined_prototype"),
    ("combined_whole", "combined_random"),
    ("given", "dynamic"),
    ("combined", "label"),
)
LEAST = 4


def findings(name: str, records: list[dict]) -> list[str]:
    """Sentences on a table: whether rows order as the paper's do, and chosen pairs of rows.

    Args:
        name: of the table.
        records: of its runs; those that changed the protocol do not count.
    """
    columns = [column for column in columns_with(name, records) if not column.of_classes]
    lines = [line for column in columns if (line := _order(name, records, column))]
    lines += [line for pair in PAIRS if (line := _pair(name, records, columns, *pair))]
    lines += [line for row in TABLES[name].rows if (line := _short(records, columns, row))]
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def columns_with(name: str, records: list[dict]) -> list[Column]:
    """The columns of the paper's table, and those of other protocols that there are records of."""
    columns = list(published_columns(name))
    there = {(_setting(r), protocol_of(r)) for r in records}
    return columns + [
        column._replace(protocol=protocol)
        for protocol in sorted({protocol for _, protocol in there} - {"paper"})
        for column in columns
        if (column[:2], protocol) in there
    ]


def protocol_of(record: dict) -> str:
    """The protocol of a record's run; older records have that of the paper alone."""
    return record.get("protocol", "paper")


def errors(records: list[dict], row: str, column: Column) -> list[float]:
    """Errors of a row's runs of the whole protocol, by seed, held-out selection."""
    return [error for _, error in sorted(_by_seed(records, row, column).items())]


def chosen(record: dict) -> dict:
    """The result by the held-out part, or of the last epoch where there is none."""
    return record["results"]["best_held_out"] or record["results"]["last"]


def _setting(record: dict) -> tuple[str, float]:
    """Data set and imbalance factor, as the paper's columns have them."""
    return record["dataset"], round(record["imbalance_factor"], 2)


def _by_seed(records: list[dict], row: str, column: Column) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for record in records:
        at = record["row"], _setting(record), protocol_of(record)
        if at != (row, column[:2], column.protocol) or record["changes"]:
            continue
        result = chosen(record)
        if not column.of_classes:
            found[record["seed"]] = result["error"]
        elif "balanced_accuracy" in result:
            found[record["seed"]] = 100 - result["balanced_accuracy"]
    return found


def _order(name: str, records: list[dict], column: Column) -> str:
    """How alike the orders of the rows are, by Spearman's rank correlation."""
    both, taken, seeds = {}, set(), []
    for row, (_, _, of_paper) in TABLES[name].rows.items():
        ours, paper = errors(records, row, column), published_error(name, row, column)
        # Of several readings of one of the paper's rows the first stands for it.
        if ours and paper is not None and of_paper not in taken:
            taken.add(of_paper)
            both[row] = float(np.mean(ours)), paper
            seeds.append(len(ours))
    if len(both) < LEAST:
        return ""
    ours, paper = np.array(list(both.values())).T
    if min(np.ptp(ours), np.ptp(paper)) == 0:
        return f"{column.title}: all {len(both)} rows that the paper has too have one error."
    best, theirs = (list(both)[int(np.argmin(values))] for values in (ours, paper))
    from scipy.stats import spearmanr  # Slow to import, and needed only here.

    correlation = spearmanr(ours, paper).statistic
    fewest, most = min(seeds), max(seeds)
    return (
        f"{column.title}: rank correlation of mean errors with the paper's over the {len(both)} "
        f"rows that the paper has too, of {fewest if fewest == most else f'{fewest} to {most}'} "
        f"seed{'s' if most > 1 else ''} each, {correlation:+.2f}; least of these here `{best}`, in "
        f"the paper `{theirs}`."
    )


def _pair(name: str, records: list[dict], columns: list[Column], row: str, other: str) -> str:
    """The difference of two rows in every column, seed by seed, and the paper's."""
    parts, brackets = [], ""
    for column in columns:
        one, two = (_by_seed(records, which, column) for which in (row, other))
        seeds = sorted(one.keys() & two.keys())
        if not seeds:
            continue
        difference = spread([one[seed] - two[seed] for seed in seeds], 1, sign=True)
        text = f"{column.imbalance_factor:g}: {difference}"
        paper = [
            published_error(name, which, column) if which in TABLES[name].rows else None
            for which in (row, other)
        ]
        if paper[0] is not None and paper[1] is not None:
            text += f" ({paper[0] - paper[1]:+.1f})"
            brackets = ", in brackets the paper's"
        named = f" ({column.protocol})" if column.protocol != "paper" else ""
        parts.append((f"{column.dataset}{named}", text))
    if not parts:
        return ""
    told = [
        f"{dataset} at {', '.join(text for at, text in parts if at == dataset)}"
        for dataset in dict.fromkeys(dataset for dataset, _ in parts)
    ]
    return f"`{row}` less `{other}`, seed by seed{brackets}: {'; '.join(told)}."


def _short(records: list[dict], columns: list[Column], row: str) -> str:
    """What a shorter protocol costs a row beside the paper's, seed by seed, where both were run."""
    parts = []
    for column in columns:
        if column.protocol == "paper":
            continue
        short, paper = (
            _by_seed(records, row, c) for c in (column, column._replace(protocol="paper"))
        )
        seeds = sorted(short.keys() & paper.keys())
        if seeds:
            difference = spread([short[seed] - paper[seed] for seed in seeds], 1, sign=True)
            parts.append(f"{column.dataset} at {column.imbalance_factor:g}: {difference}")
    if not parts:
        return ""
    return f"What `short` costs `{row}` beside `paper`, seed by seed: {'; '.join(parts)}."
