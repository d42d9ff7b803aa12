"""Value and gradient of the OT loss: the library's direct solve against two others."""

import contextlib
import dataclasses
import logging
import os
import re
import statistics
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.solver.problems import clustered_problem, exact_gradient, relative_error
from experiments.benchmarks.timing import Effort, interleaved, median_ratio, on_one_core
from experiments.documents.markdown import number, scientific, table
from experiments.runs.provenance import cores
from otrw_jax.ot.entropic import EntropicOT, ot_loss

with warnings.catch_warnings():
    # The stock solver is what the library is compared with, so ott-jax is used directly here and
    # nowhere else outside of otrw_jax/ot/entropic.py. Its import of JAXopt warns.
    warnings.simplefilter("ignore", DeprecationWarning)
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import implicit_differentiation, sinkhorn

SHAPES = ((16, 10), (50, 2), (128, 100), (128, 1000))
GOAL = 1.0
OT = EntropicOT()
INNER_ITERATIONS = 10  # Those of EntropicOT: iterations between two looks at the error.


def run(effort: Effort) -> list[dict]:
    """Measures every solver on every shape; on a CPU on one core too, where there is time.

    Problems as small as these gain nothing from a second core, and what XLA's hand-overs between
    threads cost depends on what else runs; one core gives the steadier comparison.
    """
    records = measure(effort, SHAPES)
    on_cpu = jax.default_backend() == "cpu" and hasattr(os, "sched_setaffinity")
    if effort.largest and on_cpu and cores() > 1:
        records += on_one_core(measure, effort, SHAPES)
    return records


def measure(effort: Effort, shapes: tuple[tuple[int, int], ...]) -> list[dict]:
    """One record for each solver and shape, measured in this process."""
    return [record for shape in shapes for record in _measure(shape, effort)]


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    by_shape: dict[tuple, dict[str, dict]] = {}
    for record in records:
        by_shape.setdefault((*record["shape"], record["cores"]), {})[record["solver"]] = record
    rows = []
    for (n, m, count), solvers in by_shape.items():
        rows.append(
            [f"{n}×{m}", str(count), *(cell for name in SOLVERS for cell in _cells(solvers[name]))]
        )
    header = ["batch×atoms", "cores", "direct, ms", "error"]
    for name in ("stock", "unrolled"):
        header += [f"{name}, ms", f"{name} / direct", "error"]
    missed = sorted(
        {
            f"{r['solver']} at {r['shape'][0]}×{r['shape'][1]}, {r['cores']} cores"
            for r in records
            if r["ratio"] and r["ratio"] < GOAL
        }
    )
    failures = "; ".join(
        f"{r['solver']} on {r['failures']} at {r['shape'][0]}×{r['shape'][1]} ({r['failure']})"
        for r in records
        if r["failures"] and r["cores"] == records[0]["cores"]
    )
    return "\n\n".join(
        [
            "### Gradient of the OT loss",
            "Value and gradient in the weights, combined cost, compiled. *direct* is "
            '`EntropicOT(gradient="implicit")`, *unrolled* is `gradient="unrolled"`, *stock* is '
            "ott-jax's own implicit differentiation with its default solver; all with epsilon "
            f"{OT.epsilon}, threshold {OT.threshold:g} and at most {OT.max_iterations} iterations, "
            f"a look at the error every {INNER_ITERATIONS}. Errors are relative, against the exact "
            "gradient in float64, and hold what the threshold leaves. On one core, which --quick "
            "leaves out, XLA keeps to one thread, without hand-overs between threads.",
            table(header, rows),
            f"Each time is the mean over those of {records[0]['draws']} random problems a shape on "
            "which no solver fails, each error the median. Failures, which are errors raised or "
            f"gradients that are not finite: {failures or 'none'}. Goal: ratios of at least "
            f"{GOAL:g}; missed: {'; '.join(missed) or 'nowhere'}.",
        ]
    )


def _cells(record):
    if record["seconds"] is None:
        cells = [f"fails: {record['failure']}", "–", "–"]
    else:
        ratio = number(record["ratio"]) if record["ratio"] else "–"
        cells = [number(1e3 * record["seconds"]), ratio, scientific(record["error"])]
    return [cells[0], cells[2]] if record["solver"] == "direct" else cells


def _measure(shape, effort):
    problems = [clustered_problem(*shape, seed) for seed in range(effort.draws)]
    exact = [exact_gradient(problem, OT.epsilon) for problem in problems]
    solvers = {name: jax.jit(jax.value_and_grad(loss)) for name, loss in SOLVERS.items()}
    tried = {name: [_try(solver, p) for p in problems] for name, solver in solvers.items()}
    working = {name for name, found in tried.items() if any(why is None for _, why in found)}
    # The same problems for all: those on which no solver fails that works on any.
    common = [i for i in range(len(problems)) if all(tried[w][i][1] is None for w in working)]
    timed = [problems[i] for i in common]
    calls = {name: partial(_solve_all, solvers[name], timed) for name in solvers if timed}
    # These calls are short: repeats are cheap and single ones noisy.
    often = dataclasses.replace(effort, repeats=3 * effort.repeats)
    with jax.numpy_rank_promotion("allow"):
        seconds = interleaved({name: calls[name] for name in calls if name in working}, often)
    for name, results in tried.items():
        errors = [relative_error(results[i][0], exact[i]) for i in common if name in seconds]
        reasons = [why for _, why in results if why is not None]
        compared = name != "direct" and name in seconds and "direct" in seconds
        yield {
            "section": "gradient",
            "shape": list(shape),
            "cores": cores(),
            "solver": name,
            "seconds": statistics.median(seconds[name]) / len(timed) if errors else None,
            "repeats": [s / len(timed) for s in seconds.get(name, [])],
            "ratio": median_ratio(seconds[name], seconds["direct"]) if compared else None,
            "error": statistics.median(errors) if errors else None,
            "failure": reasons[0] if reasons else None,
            "failures": len(reasons),
            "draws": len(problems),
        }


def _solve_all(solver, problems):
    return [jax.block_until_ready(solver(*problem)) for problem in problems]


def _try(solver, problem):
    """The gradient, or why there is none."""
    try:
        with _quiet(), jax.numpy_rank_promotion("allow"):
            _, gradient = jax.device_get(solver(*problem))
    except (RuntimeError, ValueError, TypeError) as error:
        found = re.findall(r"(?:Error|Exception): ([^\n.]+)", str(error))
        return None, (found[-1] if found else str(error).split("\n")[0]).strip()
    return gradient, None if np.isfinite(gradient).all() else "NaN"


@contextlib.contextmanager
def _quiet():
    """Keeps off the terminal tracebacks, which the table reports, and lineax's stale names."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logging.disable(disabled)


def _stock_loss(weights, cost):
    problem = linear_problem.LinearProblem(
        geometry.Geometry(cost_matrix=cost, epsilon=OT.epsilon),
        a=weights,
        b=jnp.full(cost.shape[1], 1 / cost.shape[1]),
    )
    solver = sinkhorn.Sinkhorn(
        threshold=OT.threshold,
        inner_iterations=INNER_ITERATIONS,
        max_iterations=OT.max_iterations,
        implicit_diff=implicit_differentiation.ImplicitDiff(),
    )
    return jnp.sum(cost * solver(problem).matrix)


SOLVERS = {
    "direct": partial(ot_loss, ot=OT),
    "stock": _stock_loss,
    "unrolled": partial(ot_loss, ot=EntropicOT(gradient="unrolled")),
}
