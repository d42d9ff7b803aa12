"""The choice of rates by the held-out part, and what is said of the chosen ones."""

import numpy as np
import pytest

from experiments.documents.readings import chosen_rows, parts
from experiments.studies.published import columns_of
from experiments.studies.rates import CHOSEN_AT, READINGS, rows
from experiments.studies.rows import row_config
from experiments.studies.tables import TABLES

FACTORS = (10.0, 20.0, 50.0, 100.0)


def record(row, held_out, test, factor=50.0, seed=0, changes=None):
    return {
        "row": row,
        "dataset": "sst2",
        "imbalance_factor": factor,
        "seed": seed,
        "changes": changes or {},
        "held_out_error": held_out,
        "results": {"best_held_out": {"error": test}},
    }


def test_the_held_out_part_chooses_and_not_the_test_set():
    records = [
        record("rows_0.01_1", 20.0, 5.0),
        record("rows_0.01_10", 10.0, 30.0),
        record("rows_0.03_10", 1.0, 1.0, factor=10.0),  # Not where rates are chosen.
        record("rows_0.03_1", 1.0, 1.0, changes={"stage1.epochs": 1}),
    ]
    assert chosen_rows(records, "sst2") == {"rows": (0.01, 10.0)}
    assert chosen_rows(records, "sst5") == {}


def test_rates_with_fewer_seeds_are_not_chosen():
    records = [record("rows_0.01_1", 20.0, 20.0, seed=seed) for seed in (0, 1)]
    records += [record("rows_0.01_10", 1.0, 1.0)]
    assert chosen_rows(records, "sst2") == {"rows": (0.01, 1.0)}


def test_what_is_told_of_flat_and_moving_errors():
    moving = {10.0: 20.0, 20.0: 22.0, 50.0: 25.0, 100.0: 36.0}
    records = [
        record("rows_0.01_10", 10.0, moving[factor] + seed, factor, seed)
        for factor in FACTORS
        for seed in (0, 1)
    ]
    records += [record("meta_0.001_1", 10.0, 17.0 + 0.2 * at, f) for at, f in enumerate(FACTORS)]
    records += [record("meta_centroids", 9.0, 15.0, 100.0, seed) for seed in (0, 1)]
    records += [record("hidden_0.01_1", 10.0, 17.0)]  # At one imbalance alone.
    text = "\n\n".join(parts(records))
    assert "within 1 point: `meta`; further apart: `rows`." in text
    # The mean of two seeds, half a point apart from the first's.
    assert "`rows`: means from 20.50 to 36.50, 16.00 apart" in text
    assert "seed by seed, at 100 less at 10 +16.00 ± 0.00, less `meta_centroids` at 100" in text
    assert "less `meta_centroids` at 100 +21.50 ± 0.71." in text
    assert "`hidden`: means" not in text and "| `hidden`: eq. 11" in text
    # The paper's, of its accuracies 87.08 to 87.14.
    assert "the paper's errors lie 0.06 apart" in text
    assert parts([]) == []


@pytest.mark.parametrize("table", ["weight_net", "weight_net_frozen"])
def test_every_row_is_its_readings_own_config(table):
    seen = set()
    for name, row in TABLES[table].rows.items():
        config = row_config(row, "sst5", 10.0, {})
        assert (config.encoder.fine_tuning.epochs == 0) == (table == "weight_net_frozen")
        if row.recipe == "otrw_net":
            stage = config.stage2.otrw_net
            rates = stage.optimizer.learning_rate, stage.weight_optimizer.learning_rate
            reading = READINGS[name.split("_")[0]]
            assert rates in reading.rates and rates[0] == stage.choices.virtual_learning_rate
            choices = config.options.otrw_net.net, stage.choices.reduction, rates
            seen.add((*choices, stage.choices.meta_cross_entropy))
    assert len(seen) == sum(len(reading.rates) for reading in READINGS.values()) == len(rows()) - 2


def test_rates_are_chosen_at_a_setting_of_the_papers():
    columns = {column[:2] for column in columns_of("table5")}
    assert set(CHOSEN_AT.items()) <= columns and np.isin(FACTORS, [f for _, f in columns]).all()
