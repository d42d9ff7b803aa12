"""What the records say of the weight net on sentences: the rates chosen, and the errors."""

import numpy as np

from experiments.documents.markdown import spread
from experiments.documents.markdown import table as markdown_table
from experiments.studies import published
from experiments.studies.rates import CHOSEN_AT, READINGS, REFERENCES, row_of

Errors = dict[int, float]
"""Errors in percent by seed."""

# An error is called flat where its means over the imbalances lie within so many points.
FLAT = 1.0


def chosen_rows(records: list[dict], dataset: str) -> dict[str, tuple[float, float]]:
    """The rates of each reading with the least mean held-out error, of those with most seeds."""
    found = {}
    for name, reading in READINGS.items():
        held_out = {r: _held_out(records, dataset, row_of(name, r)) for r in reading.rates}
        most = max(map(len, held_out.values()))
        if most:
            whole = [rates for rates in reading.rates if len(held_out[rates]) == most]
            found[name] = min(whole, key=lambda rates: np.mean(list(held_out[rates].values())))
    return found


def parts(records: list[dict]) -> list[str]:
    """The tables of every data set, the choice and what it gives, and their paragraph."""
    found = []
    for dataset in CHOSEN_AT:
        chosen = chosen_rows(records, dataset)
        if chosen:
            found += [
                f"Rates on {dataset}, chosen at an imbalance of {CHOSEN_AT[dataset]:g} by the mean "
                "error on the held-out part (in bold), among those with the most seeds; beside it "
                "the test error:",
                _choice_table(records, dataset, chosen),
                f"Test errors of the chosen rates over the imbalances of {dataset}:",
                _results_table(records, dataset, chosen),
                _paragraph(records, dataset, chosen),
            ]
    return found


def _of_row(records: list[dict], dataset: str, row: str, factor: float) -> list[dict]:
    """The runs of a row of the whole protocol, at an imbalance."""
    at = row, dataset, round(factor, 2)
    return [
        record
        for record in records
        if (record["row"], record["dataset"], round(record["imbalance_factor"], 2)) == at
        and not record["changes"]
    ]


def _held_out(records: list[dict], dataset: str, row: str) -> Errors:
    runs = _of_row(records, dataset, row, CHOSEN_AT[dataset])
    return {run["seed"]: run["held_out_error"] for run in runs}


def _test(records: list[dict], dataset: str, row: str, factor: float) -> Errors:
    runs = _of_row(records, dataset, row, factor)
    return {run["seed"]: run["results"]["best_held_out"]["error"] for run in runs}


def _factors(dataset: str) -> list[float]:
    columns = published.columns_of("table5")
    return [column.imbalance_factor for column in columns if column.dataset == dataset]


def _paper(dataset: str) -> list[float]:
    """The paper's errors of its weight net over the imbalances."""
    columns = [column for column in published.columns_of("table5") if column.dataset == dataset]
    errors = (published.error_of("table5", "OT weight net", column) for column in columns)
    return [error for error in errors if error is not None]


def _choice_table(records: list[dict], dataset: str, chosen: dict) -> str:
    lines = []
    for name, reading in READINGS.items():
        for rates in reading.rates:
            row = row_of(name, rates)
            held_out = list(_held_out(records, dataset, row).values())
            test = list(_test(records, dataset, row, CHOSEN_AT[dataset]).values())
            if held_out:
                best = "**" if rates == chosen[name] else ""
                cells = [f"{rate:g}" for rate in rates]
                text = f"{best}{spread(held_out)}{best}"
                lines.append([f"`{name}`", *cells, text, spread(test), str(len(test))])
    header = ["reading", "network's rate", "net's rate", "held-out", "test", "seeds"]
    return markdown_table(header, lines)


def _results_table(records: list[dict], dataset: str, chosen: dict) -> str:
    factors = _factors(dataset)
    lines = [["the paper's weight net", "", *(f"({error:.2f})" for error in _paper(dataset)), ""]]
    named = {name: (name, "") for name in REFERENCES} | {
        name: (row_of(name, rates), READINGS[name].about) for name, rates in chosen.items()
    }
    for name, (row, about) in named.items():
        errors = [_test(records, dataset, row, factor) for factor in factors]
        if any(errors):
            seeds = sorted({len(one) for one in errors if one})
            title = f"`{name}`: {about}" if about else f"`{name}`"
            rates = ", ".join(f"{rate:g}" for rate in chosen.get(name, ()))
            cells = [spread(list(one.values())) for one in errors]
            lines.append([title, rates, *cells, " or ".join(map(str, seeds))])
    header = ["reading", "rates", *(f"{dataset}, {factor:g}" for factor in factors), "seeds"]
    return markdown_table(header, lines)


def _paragraph(records: list[dict], dataset: str, chosen: dict) -> str:
    """How far each error moves over the imbalances, and which stay."""
    factors, paper = _factors(dataset), _paper(dataset)
    least, most = factors[0], factors[-1]
    alone = _test(records, dataset, "meta_centroids", most)
    lines: list[str] = []
    flat: list[str] = []
    moving: list[str] = []
    named = {name: name for name in REFERENCES}
    named |= {name: row_of(name, rates) for name, rates in chosen.items()}
    for name, row in named.items():
        errors = [_test(records, dataset, row, factor) for factor in factors]
        if not all(errors):
            continue
        means = [float(np.mean(list(one.values()))) for one in errors]
        moves = max(means) - min(means)
        (flat if moves <= FLAT else moving).append(f"`{name}`")
        line = (
            f"- `{name}`: means from {min(means):.2f} to {max(means):.2f}, {moves:.2f} apart; seed "
            f"by seed, at {most:g} less at {least:g} {_difference(errors[-1], errors[0])}"
        )
        if name != "meta_centroids" and alone:
            line += f", less `meta_centroids` at {most:g} {_difference(errors[-1], alone)}"
        lines.append(f"{line}.")
    if not lines:
        return "No row has been run at every imbalance."
    told = (
        f"Over the imbalances of {dataset} the paper's errors lie {max(paper) - min(paper):.2f} "
        f"apart. Here, within {FLAT:g} point: {', '.join(flat) or 'none'}; further apart: "
        f"{', '.join(moving) or 'none'}."
    )
    return "\n".join([told, "", *lines])


def _difference(one: Errors, other: Errors) -> str:
    seeds = sorted(one.keys() & other.keys())
    return spread([one[seed] - other[seed] for seed in seeds], sign=True)
