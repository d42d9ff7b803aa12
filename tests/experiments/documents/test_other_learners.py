"""The comparison of weights in other programs: its parts, its ways of training, its tables."""

import numpy as np
import pytest

from experiments.documents.other_learners import (
    META_PER_CLASS,
    SETS,
    by_class,
    errors_of,
    parts_of,
    shown,
    summary,
    weightings,
)


@pytest.fixture(scope="module")
def parts():
    return parts_of("breast cancer", 10, 3)


def test_parts_are_long_tailed_balanced_and_apart(parts):
    counts = np.bincount(parts.train[1])
    assert counts[0] == pytest.approx(10 * counts[1], abs=9)
    assert np.bincount(parts.meta[1]).tolist() == [META_PER_CLASS] * 2
    rows = [row.tobytes() for x, _ in parts for row in x]
    assert len(rows) == len(set(rows)) == counts.sum() + 2 * META_PER_CLASS + 190
    np.testing.assert_allclose(parts.train[0].mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(parts.train[0].std(0), 1)


def test_every_set_is_drawn_anew_by_its_seed():
    for name, (_, factors) in SETS.items():
        one, other = (parts_of(name, factors[0], seed).train for seed in (0, 1))
        assert one[0].shape == other[0].shape and not np.array_equal(one[0], other[0])


def test_weights_have_a_mean_of_one_whatever_they_are(parts):
    ways = weightings(parts, 0)
    for x, y, weights in ways.values():
        assert len(x) == len(y) and (weights is None or np.mean(weights) == pytest.approx(1, 1e-4))
    np.testing.assert_allclose(np.bincount([0, 0, 0, 1], by_class(np.array([0, 0, 0, 1]))), 2)
    sizes = [len(x) for x, _, _ in ways.values()]
    assert sizes == [len(parts.train[0])] * 4 + [len(parts.train[0]) + 2 * META_PER_CLASS] * 2


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_errors_are_of_every_learner_and_way(parts):
    pytest.importorskip("lightgbm")
    errors = errors_of(parts, 0)
    assert len(errors) == 12 and all(0 <= error < 50 for error in errors.values())


def test_tables_say_what_is_shown():
    ways = "no weights", "class weights", "OT"
    errors = {
        seed: {
            ("L", way): value + 0.1 * (-1) ** seed * at
            for at, (way, value) in enumerate(
                zip(ways, (20.0 + seed, 15.0 + seed, 15.02 + seed), strict=True)
            )
        }
        for seed in range(4)
    }
    text = shown("a set at 10", errors)
    assert "L, a set at 10, 4 seeds:" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| OT"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[2:] == ["-5.0 ± 0.2", "better", "+0.0 ± 0.1", "no difference shown"]


def test_the_summary_counts_gains_losses_and_the_lowest():
    ways = ("no weights", 20.0), ("class weights", 15.0), ("OT, closed form", 15.1)
    errors = {
        seed: {("L", way): mean + 0.1 * seed for way, mean in ways}
        | {("L", "OT, learned"): 16 + 0.2 * seed}
        for seed in range(4)
    }
    said = " ".join(summary({"a set at 10": errors}).split())
    assert said == (
        "Of 2 comparisons of weights of OT with class weights, 0 show a gain and 1 (L, a set at "
        "10: OT, learned) a loss. Of 2 comparisons of weights of OT with no weights, 1 (L, a set "
        "at 10: OT, learned) show a gain and 0 a loss. The lowest mean error of 1 tables: class "
        "weights (1)."
    )
