"""What is told of controls that are run again."""

from experiments.documents.repeated import repeated
from experiments.studies.controls.grid import BASES, META_USES, TRANSPORTS

TITLES = {"best_held_out": "held-out", "last": "last epoch"}


def record(seeds=(0, 1)):
    names = [f"{base}/{meta}/{ot}" for base in BASES for meta in META_USES for ot in TRANSPORTS]
    cells = {name: {which: [20.0] * len(seeds) for which in TITLES} for name in names}
    return {"seeds": list(seeds), "fingerprints": ["a", "b"], "cells": cells}


def test_what_is_run_once_or_with_other_seeds_has_no_sentence():
    assert repeated([record()], TITLES) == ""
    assert repeated([record((0, 2)), record()], TITLES) == ""


def test_equal_runs():
    said = repeated([record(), record()], TITLES)
    assert said.startswith("Run 2 times") and "60 of 60 cells have the same errors" in said
    assert "moves" not in said


def test_the_largest_moves_of_a_seed_are_told_and_where():
    one, other = record(), record()
    other["cells"]["crt/none/paper"]["last"] = [20.25, 19.5]
    other["cells"]["ce/ten/paper"]["best_held_out"] = [20.0, 23.5]
    said = repeated([one, other], TITLES)
    assert "58 of 60 cells" in said and "the others are of *paper*" in said
    assert "at most 3.50 (held-out), 0.50 (last epoch)." in said
