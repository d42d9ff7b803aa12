"""What the benchmark records and how it writes it down; no times."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.benchmarks import gradient, step, tables, threshold
from experiments.benchmarks.problems import COSTS, clustered_problem, exact_gradient
from experiments.benchmarks.timing import Effort, cores, interleaved, median_ratio, on_one_core

TINY = Effort(repeats=2, minimum_seconds=0.0, draws=2, largest=False)
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def records():
    return gradient.measure(TINY, ((16, 10),))


def test_a_record_for_every_solver(records):
    assert [record["solver"] for record in records] == ["direct", "stock", "unrolled"]
    assert json.loads(json.dumps(records)) == records
    for record in records:
        assert record["section"] == "gradient" and record["shape"] == [16, 10]
        assert record["draws"] == TINY.draws and record["cores"] == cores()
        assert (record["failure"] is None) == (record["failures"] == 0)
        if record["seconds"] is not None:
            assert record["seconds"] > 0 and len(record["repeats"]) >= TINY.repeats
            assert 0 <= record["error"] < 0.01
    assert records[0]["ratio"] is None and records[0]["failures"] == 0
    assert records[2]["ratio"] > 0


def test_the_table_holds_the_records(records):
    text = gradient.markdown(records)
    (row,) = [line for line in text.splitlines() if line.startswith("| 16×10")]
    assert tables.number(1e3 * records[0]["seconds"]) in row
    assert tables.number(records[2]["ratio"]) in row


def test_a_solver_that_always_fails_is_a_result(monkeypatch):
    def broken(weights, cost):
        raise ValueError("no solution")

    for name in ("direct", "unrolled"):
        monkeypatch.setitem(gradient.SOLVERS, name, lambda weights, cost: weights @ cost.sum(1))
    monkeypatch.setitem(gradient.SOLVERS, "stock", broken)
    found = gradient.measure(TINY, ((16, 10),))
    assert found[1]["failures"] == TINY.draws and found[1]["seconds"] is None
    assert found[0]["seconds"] > 0
    assert "fails: no solution" in gradient.markdown(found)


def test_threshold_table_and_recommendation():
    kept = {"section": "threshold", "shape": [16, 10], "seed": 0, "marginal_error": 0.0}
    made = [
        {**kept, "cost": cost, "max_iterations": most, "threshold": t, "error": t / 5}
        | {"iterations": 10, "converged": True}
        for cost in COSTS
        for most in threshold.MAX_ITERATIONS
        for t in threshold.THRESHOLDS
    ]
    text = threshold.markdown(made)
    assert "median error is below 0.001 is 0.001" in text
    assert "worst kind is below 0.01 is 0.01" in text


def test_step_table_says_whether_the_goal_is_met():
    made = [
        {"name": name, "against": against, "seconds": 0.3, "against_seconds": 0.2}
        | {"ratio": 1.5, "goal": goal}
        for name, _, against, goal in step.COMPARISONS
    ]
    assert step.markdown(made).count("missed") == 2


def test_functions_take_turns():
    calls = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = interleaved(functions, Effort(repeats=3, minimum_seconds=0.0))
    assert "".join(calls).endswith("ababab")
    assert [len(found) for found in seconds.values()] == [3, 3]
    assert median_ratio([2.0, 6.0, 3.0], [1.0, 2.0, 1.0]) == 3.0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pins by the Linux call")
def test_a_process_on_one_core():
    assert on_one_core(cores) == 1


@pytest.mark.parametrize("shape", [(16, 10), (4, 9)])
@pytest.mark.parametrize("cost", COSTS)
def test_exact_gradient_is_the_slope_of_the_converged_cost(shape, cost):
    problem = clustered_problem(*shape, 0, cost)
    weights, matrix = (np.asarray(x, np.float64) for x in problem)
    weights = weights / weights.sum()
    rng = np.random.default_rng(0)
    direction = weights * rng.normal(size=len(weights))
    direction -= weights * direction.sum()

    def value(a):
        b = np.full(shape[1], 1 / shape[1])
        kernel, v = np.exp(-matrix / 0.1), np.ones(shape[1])
        for _ in range(20000):
            u = a / (kernel @ v)
            v = b / (kernel.T @ u)
        return np.sum(matrix * u[:, None] * kernel * v[None, :])

    slope = (value(weights + 1e-5 * direction) - value(weights - 1e-5 * direction)) / 2e-5
    found = exact_gradient(problem._replace(weights=weights), 0.1)
    np.testing.assert_allclose(direction @ found, slope, rtol=1e-5)


def test_rewriting_keeps_the_rest_and_is_idempotent(tmp_path):
    path = tmp_path / "docs" / "results.md"
    tables.rewrite(path, "first")
    assert path.read_text() == f"# Results\n\n{BEGIN}\nfirst\n{END}\n"
    path.write_text(f"above\n\n{path.read_text()}\nbelow\n")
    tables.rewrite(path, "second")
    once = path.read_text()
    tables.rewrite(path, "second")
    assert path.read_text() == once
    assert once.startswith("above\n\n# Results") and once.endswith("\nbelow\n")
    assert "second" in once and "first" not in once


def test_a_document_without_markers_gets_them_at_its_end(tmp_path):
    path = tmp_path / "results.md"
    path.write_text("# Results\n\nText.\n")
    tables.rewrite(path, "new")
    assert path.read_text() == f"# Results\n\nText.\n\n{BEGIN}\nnew\n{END}\n"


@pytest.mark.parametrize("document", [BEGIN, END + BEGIN, 2 * (BEGIN + END)])
def test_broken_markers_are_refused(tmp_path, document):
    path = tmp_path / "results.md"
    path.write_text(document)
    with pytest.raises(ValueError, match="once each"):
        tables.rewrite(path, "new")
    assert path.read_text() == document


def test_an_unknown_section_ends_in_one_sentence():
    found = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", "--only=gradent"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1
    assert found.stderr.strip().count("\n") == 0
    assert "did you mean 'gradient'" in found.stderr
