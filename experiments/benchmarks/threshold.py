"""What the threshold of the Sinkhorn iterations leaves of the implicit gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.problems import (
    COSTS,
    clustered_problem,
    exact_gradient,
    relative_error,
)
from experiments.benchmarks.tables import scientific, table
from experiments.benchmarks.timing import Effort
from otrw_jax.ot.transport import EntropicOT, transport

SHAPES = ((16, 10), (50, 2), (64, 10))
LARGEST = ((128, 100),)
THRESHOLDS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
MAX_ITERATIONS = (200, 2000)
WANTED_ERROR = 1e-3


def run(effort: Effort) -> list[dict]:
    """One record for each random problem, threshold and bound on the iterations."""
    records = []
    for shape in SHAPES + (LARGEST if effort.largest else ()):
        for cost in COSTS:
            for seed in range(effort.draws):
                problem = clustered_problem(*shape, seed, cost)
                exact = exact_gradient(problem, EntropicOT().epsilon)
                for most in MAX_ITERATIONS:
                    for threshold in THRESHOLDS:
                        ot = EntropicOT(threshold=threshold, max_iterations=most)
                        gradient, solved = _gradient(*problem, ot=ot)
                        records.append(
                            {
                                "section": "threshold",
                                "shape": list(shape),
                                "cost": cost,
                                "seed": seed,
                                "max_iterations": most,
                                "threshold": threshold,
                                "error": relative_error(gradient, exact),
                                "iterations": int(solved.iterations),
                                "marginal_error": float(solved.marginal_error),
                                "converged": bool(solved.converged),
                            }
                        )
    return records


def markdown(records: list[dict]) -> str:
    """The section's title, text and tables."""
    shapes = sorted({tuple(r["shape"]) for r in records})
    overall = []
    for most in MAX_ITERATIONS:
        for threshold in THRESHOLDS:
            chosen = _chosen(records, max_iterations=most, threshold=threshold)
            errors = [r["error"] for r in chosen]
            iterations = [r["iterations"] for r in chosen]
            overall.append(
                [
                    f"{threshold:g}",
                    str(most),
                    scientific(np.median(errors)),
                    scientific(np.quantile(errors, 0.9)),
                    scientific(max(errors)),
                    f"{np.median(iterations):g}",
                    f"{np.quantile(iterations, 0.9):g}",
                    f"{100 * np.mean([not r['converged'] for r in chosen]):.0f} %",
                ]
            )
    parts = [{"cost": cost} for cost in COSTS] + [{"shape": list(shape)} for shape in shapes]
    names = [*COSTS, *(f"{n}×{m}" for n, m in shapes)]
    medians = []
    for threshold in THRESHOLDS:
        for most in MAX_ITERATIONS:
            errors = [
                [
                    r["error"]
                    for r in _chosen(records, max_iterations=most, threshold=threshold, **p)
                ]
                for p in parts
            ]
            medians.append(
                [f"{threshold:g}", str(most), *(scientific(np.median(e)) for e in errors)]
            )
    most = EntropicOT().max_iterations
    sufficient = [
        threshold
        for threshold in THRESHOLDS
        if np.median(
            [r["error"] for r in _chosen(records, max_iterations=most, threshold=threshold)]
        )
        < WANTED_ERROR
    ]
    loosest = f"{max(sufficient):g}" if sufficient else "none of them"
    seeds = len({r["seed"] for r in records})
    return "\n\n".join(
        [
            "### Threshold of the Sinkhorn iterations",
            "Relative error of the implicit gradient against the exact one in float64, over "
            f"{seeds} random problems of each shape ({', '.join(names[len(COSTS) :])}) and cost "
            f"({', '.join(COSTS)}), epsilon {EntropicOT().epsilon}.",
            table(
                [
                    "threshold",
                    "at most",
                    "median error",
                    "90 %",
                    "maximum",
                    "median iterations",
                    "90 %",
                    "not converged",
                ],
                overall,
            ),
            "Median errors by cost and by shape:",
            table(["threshold", "at most", *names], medians),
            f"The loosest threshold with a median error below {WANTED_ERROR:g}, at "
            f"{most} iterations at most: {loosest}. `EntropicOT` takes {EntropicOT().threshold:g} "
            "where nothing else is said.",
        ]
    )


def _chosen(records, **wanted):
    return [r for r in records if all(r[name] == value for name, value in wanted.items())]


@partial(jax.jit, static_argnames="ot")
def _gradient(weights, cost, ot):
    def loss(weights):
        solved = transport(weights, cost, ot=ot)
        return jnp.sum(cost * solved.plan), solved

    return jax.grad(loss, has_aux=True)(weights)
