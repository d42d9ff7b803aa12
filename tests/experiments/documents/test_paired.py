"""Verdicts on differences seed by seed, against SciPy's paired t-test."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from experiments.configs import digits, modelnet10, sst
from experiments.documents.paired import NOT_SHOWN, judged, same_epochs, same_epochs_rows, verdict
from experiments.runs.identity import flatten


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_verdict_is_that_of_a_paired_t_test(n):
    rng, found = np.random.default_rng(n), set()
    for shift in np.linspace(-6, 6, 41):
        one, other = rng.normal(shift, 1, n), rng.normal(0, 1, n)
        expected = NOT_SHOWN
        if ttest_rel(one, other).pvalue < 0.05:
            expected = "better" if one.mean() > other.mean() else "worse"
        assert verdict(one - other) == expected
        found.add(expected)
    assert found == {NOT_SHOWN, "better", "worse"}


def test_less_may_be_better():
    less = np.array([-3.0, -3.5, -2.8])
    assert (verdict(less, least=True), verdict(less)) == ("better", "worse")


def test_one_seed_shows_nothing():
    assert verdict(np.array([37.5])) == NOT_SHOWN
    assert judged(np.array([-10.0]), np.array([37.5])) == ("-10.0", "+37.5", NOT_SHOWN)


@pytest.mark.parametrize(("n", "shown"), [(2, False), (5, False), (6, True)])
def test_differences_without_spread_are_judged_by_their_signs(n, shown):
    assert verdict(np.full(n, 5.0)) == ("better" if shown else NOT_SHOWN)
    assert verdict(np.zeros(n)) == NOT_SHOWN


def test_what_is_shown_of_two_measures_is_named():
    clear, unclear = np.array([4.0, 4.5, 5.0]), np.array([-4.0, 0.5, 5.0])
    assert judged(-clear, unclear)[2] == "error better"
    assert judged(clear, clear)[2] == "error worse, few better"
    assert judged(-clear) == ("-4.5 ± 0.5", "", "error better")


@pytest.mark.parametrize(
    ("get_config", "recipe", "expected"),
    [
        (digits.get_config, "otrw_paper", ["continued"]),
        (digits.get_config, "otrw_released", ["continued", "continued_head"]),
        (digits.get_config, "cb", ["continued", "continued_head"]),
        (digits.get_config, "oltr", ["continued"]),
        (digits.get_config, "ce", []),
        (digits.get_config, "continued", []),
        (sst.get_config, "otrw_net", ["continued"]),
        (modelnet10.get_config, "otrw_paper", ["continued", "continued_head"]),
    ],
)
def test_what_trains_the_head_is_compared_with_both(get_config, recipe, expected):
    config = get_config("sst2" if get_config is sst.get_config else "")
    assert same_epochs(recipe, flatten(config.to_dict())) == expected


def record(row, seed, error, few, changes=None, epochs=20, protocol="paper"):
    result = {"error": error} | ({} if few is None else {"few_accuracy": few})
    config = {f"stage2.{row}.epochs": epochs, f"stage2.{row}.trainable": "head/.*"}
    return {
        "row": row,
        "recipe": row,
        "seed": seed,
        "protocol": protocol,
        "changes": changes or {},
        "config": {} if row == "ce" else config,
        "results": {"best_held_out": result, "last": {"error": 99.0}},
    }


def test_rows_are_compared_with_as_many_epochs_of_cross_entropy():
    records = [record("ce", seed, 40.0, 1.0) for seed in range(3)]
    records += [record("continued_head", seed, 20.0 + seed, 50.0) for seed in range(3)]
    records += [record("cb", seed, 15.0 + 1.2 * seed, 50.0 + 9 * seed) for seed in range(1, 4)]
    # A stage of one epoch and a changed run are of another budget.
    records += [record("ncm", 0, 1.0, 99.0, epochs=1), record("cb", 0, 1.0, 99.0, {"a": 1})]
    (row,) = same_epochs_rows(records)
    assert row == [
        "`cb`",
        "`continued_head`",
        "paper",
        "-4.7 ± 0.1",
        "+13.5 ± 6.4",
        "error better",
        "2",
    ]
    assert same_epochs_rows([record("continued", 0, 20.0, 50.0), record("cb", 0, 15.0, None)]) == [
        ["`cb`", "`continued`", "paper", "-5.0", "", NOT_SHOWN, "1"]
    ]


def test_runs_of_two_protocols_are_compared_each_with_its_own():
    """Their heads have as many epochs, on other first stages."""
    records = []
    for protocol, shift in (("paper", 0.0), ("short", 30.0)):
        records += [record("continued", s, 20.0 + shift, None, protocol=protocol) for s in (0, 1)]
        records += [record("cb", s, 18.0 - s + shift, None, protocol=protocol) for s in (0, 1)]
    del records[0]  # Of `paper` one seed is left.
    assert [row[2:] for row in same_epochs_rows(records)] == [
        ["paper", "-3.0", "", NOT_SHOWN, "1"],
        ["short", "-2.5 ± 0.7", "", NOT_SHOWN, "2"],
    ]
