"""Sinkhorn to convergence, by momentum and with a Newton finish, on problems that it is slow on."""

import dataclasses
import statistics
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.benchmarks.gradient import geometry, linear_problem, sinkhorn
from experiments.benchmarks.problems import Kind, clustered_problem
from experiments.benchmarks.timing import Effort, interleaved, median_ratio
from experiments.documents.markdown import number, scientific, table
from otrw_jax.ot.entropic import EntropicOT, transport

SHAPES = ((128, 100), (512, 100))
LARGEST = ((50, 2), (64, 10), (128, 1000))
KINDS: tuple[Kind, ...] = ("separated", "balanced", "absent")
EPSILONS = (0.1, 0.01)
MOST = 3000
MOMENTUM_START = 50
GOAL, SLOW = 0.2, 400


def run(effort: Effort) -> list[dict]:
    """One record for each shape, kind of problem and epsilon."""
    shapes = SHAPES + (LARGEST if effort.largest else ())
    return [
        _measure(shape, kind, epsilon, effort)
        for shape in shapes
        for kind in KINDS + (("clustered",) if effort.largest else ())
        for epsilon in EPSILONS
    ]


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    rows, missed = [], []
    for r in records:
        name = f"{r['shape'][0]}×{r['shape'][1]} {r['kind']}, {r['epsilon']:g}"
        cells = []
        for solver in SOLVERS:
            found = r["solvers"][solver]
            steps = f"{np.mean(found['iterations']):.0f}"
            if any(found["newton_steps"]):
                steps += f" + {np.mean(found['newton_steps']):.1f}"
            cells += [steps, number(1e3 * found["seconds"]), scientific(max(found["errors"]))]
        rows.append([name, *cells, number(r["ratio"])])
        slow = np.mean(r["solvers"]["Sinkhorn"]["iterations"]) >= SLOW
        if slow and tuple(r["shape"]) in SHAPES and r["ratio"] > GOAL:
            missed.append(name)
    header = ["batch×atoms, kind, epsilon"]
    for solver in SOLVERS:
        header += [f"{solver}: iterations", "ms", "error"]
    worse = [
        row[0]
        for row, r in zip(rows, records, strict=True)
        if max(_worst(r, "default"), _worst(r, "early")) > 1.5 * max(_worst(r, "Sinkhorn"), 1e-5)
    ]
    return "\n\n".join(
        [
            "### Sinkhorn to convergence, and a Newton finish",
            "Plan and potentials, combined cost, threshold 1e-05. *Clustered* problems are those "
            "of the other sections; in the others classes are as far apart as in the features of a "
            "good network, with counts of the same long tail (*separated*), *balanced* ones, and "
            "every second class *absent* from the batch. "
            f"*Sinkhorn* is plain, at most {MOST} iterations; *momentum* is ott-jax's adaptive one "
            f"from iteration {MOMENTUM_START} on; *default* is `EntropicOT()`, at most 200 "
            "iterations and then Newton steps (after the +); *early* takes the steps after 10, "
            "`EntropicOT(max_iterations=10)`. Iterations and steps are means over the problems of "
            "a kind, errors the largest L1 error of the marginals.",
            table([*header, "early / Sinkhorn"], rows),
            f"Goal: *early* takes at most {GOAL:g} of Sinkhorn's time at "
            f"{' and '.join(f'{n}×{m}' for n, m in SHAPES)}, where Sinkhorn takes {SLOW} "
            f"iterations or more; missed: {'; '.join(missed) or 'nowhere'}. Marginals of *default* "
            "or *early* half as far off again as Sinkhorn's, or as the threshold where those are "
            f"within it: {'; '.join(worse) or 'nowhere'}.",
        ]
    )


def _worst(record, solver):
    return max(record["solvers"][solver]["errors"])


def _measure(shape, kind, epsilon, effort):
    problems = [clustered_problem(*shape, seed, kind=kind) for seed in range(effort.draws)]
    calls = {name: partial(_solve_all, name, problems, epsilon) for name in SOLVERS}
    found = {name: calls[name]() for name in SOLVERS}
    # These calls are long: few repeats do.
    seconds = interleaved(calls, dataclasses.replace(effort, repeats=effort.repeats // 2 + 1))
    solvers = {
        name: {
            "iterations": [int(iterations) for _, iterations, _ in found[name]],
            "newton_steps": [int(steps) for _, _, steps in found[name]],
            "errors": [
                _error(plan, problem.weights)
                for (plan, *_), problem in zip(found[name], problems, strict=True)
            ],
            "seconds": statistics.median(seconds[name]) / len(problems),
        }
        for name in SOLVERS
    }
    return {
        "section": "newton",
        "shape": list(shape),
        "kind": kind,
        "epsilon": epsilon,
        "solvers": solvers,
        "ratio": median_ratio(seconds["early"], seconds["Sinkhorn"]),
    }


def _error(plan: Array, weights: Array) -> float:
    masses, given = np.asarray(plan, np.float64), np.asarray(weights, np.float64)
    columns = np.abs(masses.sum(0) - 1 / masses.shape[1]).sum()
    return float(columns + np.abs(masses.sum(1) - given).sum())


def _by_transport(weights, cost, epsilon, **options):
    solved = transport(weights, cost, ot=EntropicOT(epsilon, **options))
    return solved.plan, solved.iterations, solved.newton_steps


def _by_momentum(weights, cost, epsilon):
    with jax.numpy_rank_promotion("allow"):
        problem = linear_problem.LinearProblem(
            geometry.Geometry(cost_matrix=cost, epsilon=epsilon),
            a=weights,
            b=jnp.full(cost.shape[1], 1 / cost.shape[1]),
        )
        solver = sinkhorn.Sinkhorn(
            threshold=EntropicOT().threshold,
            max_iterations=MOST,
            momentum=sinkhorn.acceleration.Momentum(start=MOMENTUM_START),
        )
        output = solver(problem)
        return output.matrix, output.n_iters, jnp.zeros((), int)


SOLVERS = {
    "Sinkhorn": jax.jit(
        partial(_by_transport, max_iterations=MOST, newton=False), static_argnames="epsilon"
    ),
    "momentum": jax.jit(_by_momentum, static_argnames="epsilon"),
    "default": jax.jit(_by_transport, static_argnames="epsilon"),
    "early": jax.jit(partial(_by_transport, max_iterations=10), static_argnames="epsilon"),
}


def _solve_all(name, problems, epsilon):
    return [jax.block_until_ready(SOLVERS[name](*problem, epsilon)) for problem in problems]
