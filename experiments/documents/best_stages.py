"""What OT weights add to the best second stage without them, on the same networks."""

from collections.abc import Mapping

import numpy as np

from experiments.documents.findings import chosen, protocol_of
from experiments.documents.markdown import spread
from experiments.documents.paired import SAME_EPOCHS, verdict
from experiments.recipes import RECIPES
from experiments.studies.tables import TABLES

LEAST = 4
"""Second stages without OT weights, for one to be called the best."""
TRANSDUCTIVE = ("ot_correction",)
"""Recipes that read the test part as a whole."""
ON_META = ("otrw_released", "meta_centroids", "meta_logistic")
"""Recipes whose head is trained on the meta set's labels."""


def best_stages(name: str, records: list[dict]) -> list[str]:
    """A sentence for each setting in which stages with and without OT weights have been run.

    The best of both kinds is the one with the least mean error on the held-out part, of those that
    have been run on all seeds; the test errors of these two are compared.

    Args:
        name: of the table.
        records: of its runs; those that changed the protocol do not count.
    """
    settings = sorted({_setting(record) for record in records}, key=lambda s: (*s[:2], -s[2]))
    lines = [line for setting in settings if (line := _sentence(name, records, setting))]
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def _setting(record: dict) -> tuple[str, str, float]:
    """Protocol, data set and imbalance factor."""
    return protocol_of(record), record["dataset"], round(record["imbalance_factor"], 2)


def _sentence(name: str, records: list[dict], setting: tuple[str, str, float]) -> str:
    rows: dict[str, dict[int, dict]] = {}
    for record in records:
        plainly = not record["changes"] and record.get("held_out_error") is not None
        if plainly and _setting(record) == setting:
            rows.setdefault(record["row"], {})[record["seed"]] = record
    kinds: Mapping[bool, dict] = {True: {}, False: {}}
    for row, runs in rows.items():
        recipe = TABLES[name].rows[row].recipe
        of = RECIPES[recipe]
        on_cross_entropy = of.second is not None and of.trains_first == RECIPES["ce"].trains_first
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
    protocol, dataset, factor = setting
    named = f"{dataset} ({protocol})" if protocol != "paper" else dataset
    count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    return (
        f"{named} at {factor:g}: of {len(kinds[True])} stages with OT weights the "
        f"held-out part chooses {_named(name, weighted)}, of {len(kinds[False])} "
        f"without {_named(name, plain)}; the first less the second, on the same networks seed by "
        f"seed, {spread(differences, 1, sign=True)} ({count}): "
        f"{verdict(differences, least=True)}."
    )


def _least(rows: Mapping[str, dict], seeds: list[int]) -> str:
    return min(rows, key=lambda row: np.mean([rows[row][s]["held_out_error"] for s in seeds]))


def _named(name: str, row: str) -> str:
    on_meta = TABLES[name].rows[row].recipe in ON_META
    return f"`{row}` (trained on the meta set too)" if on_meta else f"`{row}`"
