"""What records say beside the paper's figures: only what they hold, and in the right direction."""

import numpy as np
import pytest

from experiments.documents.findings import columns_with, errors, findings
from experiments.studies.published import Column
from experiments.studies.tables import published_columns, published_error

AT = Column("sst2", 50.0)


def record(row, error, seed=0, changes=None, **at):
    return {
        "row": row,
        "dataset": "sst2",
        "imbalance_factor": 50.0,
        "seed": seed,
        "changes": changes or {},
        "results": {
            "best_held_out": {"error": error, "balanced_accuracy": 99 - error},
            "last": {"error": 99.0},
        },
    } | at


def test_the_order_of_the_rows_is_compared_with_the_papers():
    rows = ["ce", "proportion", "ldam_drw", "otrw_net"]
    paper = [published_error("table5", row, AT) for row in rows]
    ranks = np.argsort(np.argsort(paper))
    alike = [record(row, 10.0 + 5 * rank) for row, rank in zip(rows, ranks, strict=True)]
    opposite = [record(row, 30.0 - 5 * rank) for row, rank in zip(rows, ranks, strict=True)]
    assert (
        "over the 4 rows that the paper has too, of 1 seed each, +1.00; least of these here "
        "`otrw_net`, in the paper `otrw_net`."
    ) in findings("table5", alike)[0]
    again = [*opposite, {**opposite[0], "seed": 1}]
    assert "of 1 to 2 seeds each, -1.00" in findings("table5", again)[0]
    assert "rank correlation" not in "".join(findings("table5", alike[:3]))
    same = findings("table5", [record(row, 49.9) for row in rows])
    assert "all 4 rows that the paper has too have one error" in same[0]


def test_several_readings_of_one_row_count_once():
    at = {"dataset": "cifar10", "imbalance_factor": 100.0}
    rows = {"ce": 30.0, "focal": 29.0, "ldam": 26.0, "otrw_paper": 18.0}
    records = [record(row, error, **at) for row, error in rows.items()]
    records += [record("otrw_released", 90.0, **at), record("otrw_global", 90.0, **at)]
    told = findings("table1", records)[0]
    assert "over the 4 rows" in told and "+1.00; least of these here `otrw_paper`" in told


def test_rows_are_compared_seed_by_seed():
    records = [record("otrw_net", 20.0, 0), record("otrw_net", 24.0, 1)]
    records += [record("ce", 50.0, 0), record("ce", 52.0, 1), record("ce", 0.0, 2)]
    (text,) = findings("table5", records)
    # In the paper 12.86 and 45.
    assert (
        "`otrw_net` less `ce`, seed by seed, in brackets the paper's: sst2 at "
        "50: -29.0 ± 1.4 (-32.1)."
    ) in text
    assert "meta_logistic" not in text


def test_changed_runs_and_other_settings_do_not_count():
    records = [record("ce", 50.0), record("ce", 10.0, 1, {"stage1.epochs": 2})]
    records += [record("ce", 20.0, 1, imbalance_factor=10.0)]
    assert errors(records, "ce", AT) == [50.0]
    assert errors(records, "ce", AT._replace(of_classes=True)) == [51.0]
    assert findings("table5", []) == []


@pytest.mark.parametrize("table", ["table12", "table18"])
def test_a_table_of_two_accuracies_has_two_columns_a_setting(table):
    columns = list(published_columns(table))
    assert [column.imbalance_factor for column in columns] == [100, 100, 25, 25, 12.5, 12.5, 10, 10]
    assert [column.of_classes for column in columns] == 4 * [False, True]


def test_protocols_stand_apart_and_their_difference_is_told():
    at = {"dataset": "cifar10", "imbalance_factor": 100.0}
    records = [record("ce", 30.0, 0, **at), record("ce", 31.0, 1, **at)]
    short = {**at, "protocol": "short"}
    records += [record("ce", 33.0, 0, **short), record("ce", 35.0, 1, **short)]
    records += [record("otrw_global", 25.0, 0, **short), record("crt", 20.0, 0, **at)]
    paper, other = Column("cifar10", 100.0), Column("cifar10", 100.0, protocol="short")
    assert errors(records, "ce", paper) == [30.0, 31.0]
    assert errors(records, "ce", other) == [33.0, 35.0]
    assert other.title == "cifar10, 100, short"
    assert columns_with("table1", records) == [*published_columns("table1"), other]
    assert columns_with("table1", records[:2]) == list(published_columns("table1"))
    (told,) = findings("table1", records)
    lines = told.splitlines()
    assert (
        "- What `short` costs `ce` beside `paper`, seed by seed: cifar10 at 100: +3.5 ± 0.7."
        in lines
    )
    assert "- `otrw_global` less `ce`, seed by seed: cifar10 (short) at 100: -8.0." in lines
    assert len(lines) == 2
