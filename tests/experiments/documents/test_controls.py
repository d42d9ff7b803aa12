"""The tables of the controls: settings beside each other, named by data set and encoder."""

import numpy as np

from experiments.documents.controls import controls_parts
from experiments.studies.controls.grid import BASES, META_USES, TRANSPORTS

ENCODER = "EfficientNet-Lite0 at 128²"


def record(gain, factor=100.0, held_out=True, **about):
    """Of two seeds; every OT step brings the same gain, of the second seed one more."""
    names = ("best_held_out", "last", "best_test")[0 if held_out else 1 :]
    cells = {}
    for number, base in enumerate(BASES):
        for meta in META_USES:
            for ot in TRANSPORTS:
                off = np.array([gain, gain + 1]) * (ot != "none")
                cells[f"{base}/{meta}/{ot}"] = {n: list(20.0 + number - off) for n in names}
    return {
        "dataset": "cifar10_features",
        "imbalance_factor": factor,
        "seeds": [0, 1],
        "fingerprints": ["a", "b"],
        "config": {"stage1.epochs": 30, "head.epochs": 10},
        "versions": {"jax": "1"},
        "device": "cpu: a",
        "seconds": 60.0,
        "cells": cells,
        **about,
    }


def rows_of(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def test_settings_stand_beside_each_other_by_their_encoder():
    other = {"encoder": "EfficientNet-Lite0 at 224²"}
    records = [record(1, encoder=ENCODER), record(2, 20.0, encoder=ENCODER), record(3, **other)]
    parts = controls_parts([*records, record(4, encoder=ENCODER)])
    rows = rows_of(parts[3])
    assert len(rows) == 3 * len(META_USES)
    name = f"cifar10_features ({ENCODER})"
    # The last record of a setting counts; a mean over the bases, and its difference by seed.
    assert rows[0][:5] == [name, "100", "30", "2", "not used"]
    assert rows[0][5:7] == ["22.0 ± 0.0", "17.5 ± 0.7 (-4.5 ± 0.7)"]
    assert (
        rows[3][:2] == [name, "20"] and rows[6][0] == "cifar10_features (" + other["encoder"] + ")"
    )
    assert f"### Controls: {name}, imbalance factor 100" in parts
    assert sum(part.startswith("### Controls") for part in parts) == 3


def test_without_a_held_out_part_the_last_epoch_is_told():
    rows = rows_of(controls_parts([record(1, held_out=False, dataset="digits")])[3])
    assert {row[0] for row in rows} == {"digits, last epoch"}
    assert controls_parts([]) == []
