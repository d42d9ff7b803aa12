"""What OT weights add to the best second stage without them, on the same networks."""

from collections.abc import Mapping

import numpy as np

from experiments.documents.findings import chosen, columns_with, protocol_of
from experiments.documents.markdown import spread
from experiments.documents.paired import SAME_EPOCHS, verdict
from experiments.recipes import RECIPES
from experiments.studies.published import Column
from experiments.studies.tables import TABLES

LEAST = 4
"""Second stages without OT weights, for one to be called the best."""
TRANSDUCTIVE = ("ot_correction",)
"""Recipes that read the test part as a whole."""


def best_stages(name: str, records: list[dict]) -> list[str]:
    """A sentence for each column in which stages with and without OT weights have been run.

    The best of both kinds is the one with the least mean error on the held-out part, of those that
    have been run on all seeds; the test errors of these two are compared.

    Args:
        name: of the table.
        records: of its runs; those that changed the protocol do not count.
    """
    columns = [column for column in columns_with(name, records) if not column.of_classes]
    lines = [line for column in columns if (line := _sentence(name, records, column))]
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def _sentence(name: str, records: list[dict], column: Column) -> str:
    rows: dict[str, dict[int, dict]] = {}
    for record in records:
        at = record["dataset"], round(record["imbalance_factor"], 2), protocol_of(record)
        told = not record["changes"] and record.get("held_out_error") is not None
        if told and at == (*column[:2], column.protocol):
            rows.setdefault(record["row"], {})[record["seed"]] = record
    kinds: Mapping[bool, dict] = {True: {}, False: {}}
    for row, runs in rows.items():
        recipe = TABLES[name].rows[row].recipe
        of = RECIPES[recipe]
        on_cross_entropy = of.second is not None and of.first == RECIPES["ce"].first
        if on_cross_entropy and recipe not in (*SAME_EPOCHS, *TRANSDUCTIVE):
            kinds[of.preset is not None][row] = runs
    seeds = sorted(set().union(*(runs for kind in kinds.values() for runs in kind.values())))
    for kind in kinds.values():
        for row in [row for row, runs in kind.items() if len(runs) < len(seeds)]:
            del kind[row]
    if not kinds[True] or len(kinds[False]) < LEAST:
        return ""
    weighted, plain = (_least(kinds[kind], seeds) for kind in (True, False))
    differences = np.array(
        [chosen(rows[weighted][s])["error"] - chosen(rows[plain][s])["error"] for s in seeds]
    )
    protocol = f" ({column.protocol})" if column.protocol != "paper" else ""
    return (
        f"{column.dataset}{protocol} at {column.imbalance_factor:g}: of {len(kinds[True])} stages "
        f"with OT weights the held-out part chooses `{weighted}`, of {len(kinds[False])} without "
        f"`{plain}`; the first less the second, on the same networks seed by seed, "
        f"{spread(differences, 1, sign=True)} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''}): "
        f"{verdict(differences, least=True)}."
    )


def _least(rows: Mapping[str, dict], seeds: list[int]) -> str:
    return min(rows, key=lambda row: np.mean([rows[row][s]["held_out_error"] for s in seeds]))
