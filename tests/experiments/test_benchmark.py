"""What the benchmark records and how it writes it down; no times."""

import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.benchmarks import encoder, precision, seeds, step
from experiments.benchmarks.scripts import start
from experiments.benchmarks.solver import gradient, newton, sinkhorn, threshold
from experiments.benchmarks.solver.problems import (
    COSTS,
    batch_costs,
    clustered_problem,
    exact_gradient,
)
from experiments.benchmarks.timing import Effort, interleaved, median_ratio, on_one_core
from experiments.documents.markdown import number
from experiments.runs.provenance import cores
from otrw_jax import ot_loss

TINY = Effort(repeats=2, minimum_seconds=0.0, draws=2, largest=False)
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
    assert number(1e3 * records[0]["seconds"]) in row
    assert number(records[2]["ratio"]) in row


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
        for most in threshold.MAX_ITERATIONS[:1]
        for t in threshold.THRESHOLDS
    ]
    text = threshold.markdown(made)
    assert "median error is below 0.001 is 0.001" in text
    assert "worst kind is below 0.01 is 0.01" in text


def test_problems_of_separated_classes():
    """Those of the other sections stay as they are; an absent class has no example."""
    plain = clustered_problem(64, 10, 0)
    (first,) = batch_costs(64, 10, 1, 0, "combined")
    np.testing.assert_array_equal(plain.cost, first)
    for kind in ("separated", "balanced", "absent"):
        cost = np.asarray(clustered_problem(64, 10, 0, kind=kind).cost)
        own = cost.argmin(1)
        assert cost.min(1).max() < 0.2 and np.sort(cost, axis=1)[:, 1].min() > 1
        assert len(set(own)) > 1 and (kind != "absent" or not (own % 2).any())


def test_newton_table_says_where_the_goal_is_missed(monkeypatch):
    monkeypatch.setattr(newton, "EPSILONS", (0.1,))
    monkeypatch.setattr(newton, "SHAPES", ((16, 10),))
    monkeypatch.setattr(newton, "KINDS", ("balanced",))
    (record,) = newton.run(TINY)
    assert json.loads(json.dumps(record)) == record
    early = record["solvers"]["early"]
    assert early["iterations"] == [10, 10] and min(early["newton_steps"]) > 0
    assert max(early["errors"]) < 2e-5 and record["ratio"] > 0
    record["solvers"]["Sinkhorn"]["iterations"], record["ratio"] = [500, 600], 0.3
    text = newton.markdown([record])
    assert "missed: 16×10 balanced, 0.1." in text and text.endswith("within it: nowhere.")
    early["errors"] = [1e-3, 1e-7]
    assert newton.markdown([record]).endswith("within it: 16×10 balanced, 0.1.")
    record["solvers"]["Sinkhorn"]["iterations"] = [300, 300]
    assert "missed: nowhere" in newton.markdown([record])


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


def test_the_price_of_a_program_is_in_the_step_table():
    made = [
        {"section": "step", "step": "paper", "trace_seconds": 1.5, "compile_seconds": 2.5}
        | {"arguments": 3_000_000, "temporary": 4_000_000}
    ]
    (row,) = [line for line in step.markdown(made).splitlines() if line.startswith("| `paper`")]
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["1.50", "2.50", "3.0", "4.0"]


def test_warm_and_cold_starts_solve_the_same_problem():
    (first, second) = batch_costs(16, 10, 2, 0, "combined")
    assert not np.array_equal(first, second)
    last, _ = sinkhorn._solve(first, jax.numpy.zeros(10), 1)
    cold, iterations = sinkhorn._solve(second, jax.numpy.zeros(10), 1)
    warm, _ = sinkhorn._solve(second, last, 1)
    np.testing.assert_allclose(cold - cold.mean(), warm - warm.mean(), atol=1e-4)
    assert 1 < iterations < 200
    # From its own solution a problem is solved at once: the start is used.
    assert sinkhorn._solve(second, cold, 1)[1] <= 2


def test_seeds_take_as_many_steps_together_as_one():
    cases = seeds._cases(TINY)
    model, inputs, prepare, batch, steps = cases["MLP of the digits"]
    assert len(inputs) == steps * batch
    for count in (0, 2):
        step_count = seeds._epochs(model, inputs, prepare, batch, count)()
        assert (np.asarray(step_count) == steps).all()


def test_images_a_second_are_measured(monkeypatch):
    monkeypatch.setattr(encoder, "BATCH", 2)
    monkeypatch.setattr(encoder, "SIDE", 32)
    monkeypatch.setattr(encoder, "LAYERS", ((4, 3, 3, 2), (4, 3, 5, 1)))
    records = encoder.run(TINY)
    assert [record["name"] for record in records] == [
        "network",
        "3×3, stride 2, 4² × 3",
        "5×5, stride 1, 4² × 3",
    ]
    assert all(record["section"] == "encoder" and record["seconds"] > 0 for record in records)
    text = encoder.markdown(records)
    assert f"{2 / records[0]['seconds']:.0f} images a second" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| 5×5, stride 1")]
    assert number(records[2]["ratio"]) in row


def test_half_precision_is_measured(monkeypatch, data_dir):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    for name, value in (("TYPES", ("bfloat16",)), ("EPOCHS", 2), ("SEEDS", 1)):
        monkeypatch.setattr(precision, name, value)
    (record,) = precision.run(TINY)
    assert record["dtype"] == "bfloat16" and record["seconds"] > 0
    assert len(record["losses"]) == len(record["errors"]) == 1
    assert 0 <= record["errors"][0] <= 100


def test_half_precision_is_compared_seed_by_seed():
    made = [
        {"dtype": name, "errors": errors, "losses": [0.1, 0.3], "seconds": 2.0}
        for name, errors in (("float32", [20.0, 30.0]), ("bfloat16", [21.0, 31.0]))
    ]
    text = precision.markdown(made)
    assert "25.0 ± 7.1" in text and "26.0 ± 7.1" in text and "0.2000 ± 0.1414" in text
    assert "seed by seed: 1.0 ± 0.0 points" in text


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs PyTorch")
def test_pytorch_computes_what_the_library_does():
    import torch

    from experiments.benchmarks import pytorch

    problem = clustered_problem(16, 10, 0)
    value, gradient = jax.value_and_grad(ot_loss)(*problem)
    weights, cost = (torch.tensor(np.asarray(x)) for x in problem)
    weights.requires_grad_()
    theirs = pytorch.ot_loss(weights, cost, pytorch.CONVERGED)
    theirs.backward()
    assert theirs.item() == pytest.approx(float(value), rel=1e-4)
    difference = weights.grad.numpy() - np.asarray(gradient)
    np.testing.assert_allclose(difference, difference.mean(), atol=2e-4)

    network = pytorch.ResNet(10)
    assert sum(p.numel() for p in network.parameters()) == 464_154
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    meta = torch.rand(10, 3, 32, 32), torch.arange(10)
    stage = pytorch.Stage2(network, 10, head_only=False, given_features=False)
    values = stage.step(
        pytorch.crop_and_flip(images), torch.arange(4), torch.ones(4), meta, pytorch.LOOSE
    )
    assert values.sum().item() == pytest.approx(4, rel=1e-5) and (values != 1).any()


def test_the_start_of_scripts_is_that_of_whole_processes(monkeypatch):
    monkeypatch.setattr(start, "HELP", ("train",))
    monkeypatch.setattr(start, "runs", lambda folder: {})
    # Each command is started once, and its seconds serve for its repetitions.
    monkeypatch.setattr(start, "spent_by", functools.cache(start.spent_by))
    records = start.run(Effort(repeats=1))
    assert [record["name"] for record in records] == [
        *("import jax", "import otrw_jax", "experiments.train --help"),
        "experiments.train --wrkdir=runs",
    ]
    assert all(record["processor"] > 0 and record["seconds"] > 0 for record in records)
    text = start.markdown(records)
    assert text.count("| import ") == 2 and "processor, s" in text
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1: .*ZeroDivisionError"):
        start.spent_by(("-c", "1 / 0"))
