"""The best stages with and without OT weights are chosen by the held-out part alone."""

import pytest

from experiments.documents.best_stages import best_stages
from tests.experiments.documents.test_findings import record

AT = {"dataset": "cifar10", "imbalance_factor": 100.0}
PLAIN = ("cb", "crt", "lws", "ncm")


def records_of(errors, held_out, seeds=(0, 1), **changes):
    """Test errors that rise by one with the seed, and held-out errors, by row."""
    return [
        record(row, errors[row] + seed, seed, **AT, held_out_error=held_out[row], **changes)
        for row in errors
        for seed in seeds
    ]


@pytest.fixture
def records():
    errors = {"otrw_global": 20.0, "otrw_paper": 10.0, **dict.fromkeys(PLAIN, 30.0), "ncm": 25.0}
    held_out = {**errors, "otrw_global": 5.0, "otrw_paper": 6.0, "ncm": 9.0}
    return records_of(errors, held_out)


def test_the_test_errors_of_the_chosen_ones_are_compared(records):
    (text,) = best_stages("table1", records)
    assert text == (
        "- cifar10 at 100: of 2 stages with OT weights the held-out part chooses `otrw_global`, of "
        "4 without `ncm`; the first less the second, on the same networks seed by seed, "
        "-5.0 ± 0.0 (2 seeds): no difference shown."
    )
    for one in records:
        if one["row"] == "otrw_global":
            one["results"]["best_held_out"]["error"] -= 0.1 * one["seed"]
    assert "-5.1 ± 0.1 (2 seeds): better." in best_stages("table1", records)[0]


def test_the_mean_of_the_held_out_errors_of_all_seeds_chooses(records):
    for one in records:
        if one["row"] == "otrw_paper":  # The best on the first seed, and not in the mean.
            one["held_out_error"] = 0.0 if one["seed"] == 0 else 11.0
    assert "chooses `otrw_global`" in best_stages("table1", records)[0]


def test_what_is_transductive_changed_or_of_one_stage_does_not_count(records):
    (text,) = best_stages("table1", records)
    worse = {"ot_correction": 0.0, "ce": 0.0, "continued_head": 0.0, "ldam_drw": 0.0}
    more = records_of(worse, worse)
    more += records_of({"cb": 0.0}, {"cb": 0.0}, seeds=(7,), changes={"seed": 1})
    more += records_of({"cb": 0.0}, {"cb": 0.0}, seeds=(8,), protocol="short")
    assert best_stages("table1", records + more) == [text]


def test_stages_without_some_of_the_seeds_are_not_considered(records):
    (text,) = best_stages("table1", records)
    begun = records_of({"disalign": 0.0, "otrw_net": 0.0}, {"disalign": 0.0, "otrw_net": 0.0}, (1,))
    assert best_stages("table1", records + begun) == [text]
    assert best_stages("table1", [r for r in records if r["row"] != "crt"]) == []


def test_a_stage_that_is_trained_on_the_meta_set_is_called_so(records):
    best = {"otrw_released": 1.0, "meta_logistic": 1.0}
    (text,) = best_stages("table1", records + records_of(best, best))
    assert "chooses `otrw_released` (trained on the meta set too), of 5 without" in text
    assert "without `meta_logistic` (trained on the meta set too); the first" in text
