"""What the threshold of the Sinkhorn iterations leaves of the implicit gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.solver.problems import (
    COSTS,
    clustered_problem,
    exact_gradient,
    relative_error,
)
from experiments.benchmarks.timing import Effort
from experiments.documents.markdown import scientific, table
from otrw_jax.ot.entropic import EntropicOT, transport

SHAPES = ((16, 10), (50, 2), (64, 10))
LARGEST = ((128, 100), (128, 1000))
THRESHOLDS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
MAX_ITERATIONS = (200, 2000)
WANTED_MEDIAN = 1e-3
WANTED_WORST = 1e-2


def run(effort: Effort) -> list[dict]:
    """One record for each random problem, threshold and bound on the iterations."""
    records = []
    for shape in SHAPES + (LARGEST if effort.largest else ()):
        for cost in COSTS:
            for seed in range(effort.draws):
                problem = clustered_problem(*shape, seed, cost)
                exact = exact_gradient(problem, float(EntropicOT().epsilon))
                for most in MAX_ITERATIONS if effort.largest else MAX_ITERATIONS[:1]:
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
    kinds = [{"cost": cost, "shape": list(shape)} for shape in shapes for cost in COSTS]
    names = [f"{kind['shape'][0]}×{kind['shape'][1]} {kind['cost']}" for kind in kinds]
    overall, by_kind, good_median, good_worst = [], [], [], []
    bounds = sorted({r["max_iterations"] for r in records})
    for most in bounds:
        for threshold in THRESHOLDS:
            chosen = _chosen(records, max_iterations=most, threshold=threshold)
            errors = [r["error"] for r in chosen]
            iterations = [r["iterations"] for r in chosen]
            medians = [np.median([r["error"] for r in _chosen(chosen, **kind)]) for kind in kinds]
            unfinished = np.mean([not r["converged"] for r in chosen])
            overall.append(
                [
                    f"{threshold:g}",
                    str(most),
                    *map(scientific, (np.median(errors), max(medians), max(errors))),
                    f"{np.median(iterations):g}",
                    str(max(iterations)),
                    f"{100 * unfinished:.0f} %",
                ]
            )
            by_kind.append(list(map(scientific, medians)))
            if most == max(bounds):
                good_median += [threshold] if np.median(errors) < WANTED_MEDIAN else []
                good_worst += [threshold] if max(medians) < WANTED_WORST else []
    header = "threshold, at most, median error, worst kind, maximum, median iterations, maximum"
    settings = [f"{row[0]}, {row[1]}" for row in overall]
    kind_rows = [
        [name, *cells] for name, cells in zip(names, zip(*by_kind, strict=True), strict=True)
    ]
    seeds = len({r["seed"] for r in records})
    return "\n\n".join(
        [
            "### Threshold of the Sinkhorn iterations",
            "Relative error of the implicit gradient against the exact one in float64, over "
            f"{seeds} random problems of each kind, a shape and a cost; epsilon "
            f"{EntropicOT().epsilon}. *Worst kind* is the largest of the kinds' medians.",
            table([*header.split(", "), "not converged"], overall),
            "Median errors of each kind, by threshold and bound on the iterations:",
            table(["batch×atoms, cost", *settings], kind_rows),
            f"With {max(bounds)} iterations at most, the loosest threshold whose median "
            f"error is below {WANTED_MEDIAN:g} is {_loosest(good_median)}; the loosest whose worst "
            f"kind is below {WANTED_WORST:g} is {_loosest(good_worst)}. `EntropicOT` takes "
            f"{EntropicOT().threshold:g}, and at most {EntropicOT().max_iterations} iterations, "
            "where nothing else is said.",
        ]
    )


def _loosest(thresholds):
    return f"{max(thresholds):g}" if thresholds else "none of these"


def _chosen(records, **wanted):
    return [r for r in records if all(r[name] == value for name, value in wanted.items())]


@partial(jax.jit, static_argnames="ot")
def _gradient(weights, cost, ot):
    def loss(weights):
        solved = transport(weights, cost, ot=ot)
        return jnp.sum(cost * solved.plan), solved

    return jax.grad(loss, has_aux=True)(weights)
