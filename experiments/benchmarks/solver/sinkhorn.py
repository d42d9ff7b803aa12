"""How the Sinkhorn iterations are started and looked at: why they are as they are."""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.solver.gradient import geometry, linear_problem, sinkhorn
from experiments.benchmarks.solver.problems import COSTS, batch_costs
from experiments.benchmarks.timing import Effort, interleaved
from experiments.documents.markdown import number, table
from otrw_jax.ot.entropic import EntropicOT

SHAPES = ((16, 10), (50, 2), (128, 100))
LOOKS = (1, 2, 5, 10, 20)
OT = EntropicOT()


def run(effort: Effort) -> list[dict]:
    """Iterations from cold and warm starts, and seconds by how often the error is looked at."""
    records = []
    for shape in SHAPES:
        for cost in COSTS:
            costs = batch_costs(*shape, 2 * effort.draws, 0, cost)
            iterations: dict[str, list[int]] = {"cold": [], "warm": []}
            last = jnp.zeros(shape[1])
            for number_, matrix in enumerate(costs):
                _, cold = _solve(matrix, jnp.zeros(shape[1]), 1)
                last, warm = _solve(matrix, last, 1)
                if number_:
                    iterations["cold"].append(int(cold))
                    iterations["warm"].append(int(warm))
            calls: dict[str, Callable[[], Any]] = {
                str(look): partial(_solve_all, costs, jnp.zeros(shape[1]), look) for look in LOOKS
            }
            seconds = interleaved(calls, effort)
            records.append(
                {
                    "section": "sinkhorn",
                    "shape": list(shape),
                    "cost": cost,
                    "iterations": {name: float(np.mean(n)) for name, n in iterations.items()},
                    "seconds": {
                        name: statistics.median(s) / len(costs) for name, s in seconds.items()
                    },
                }
            )
    return records


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    rows = [
        [
            f"{r['shape'][0]}×{r['shape'][1]} {r['cost']}",
            *(f"{r['iterations'][name]:.1f}" for name in ("cold", "warm")),
            *(number(1e3 * r["seconds"][str(look)]) for look in LOOKS),
        ]
        for r in records
    ]
    fewer = [r for r in records if r["iterations"]["warm"] < 0.9 * r["iterations"]["cold"]]
    header = ["batch×atoms, cost", "iterations, cold", "warm"]
    return "\n\n".join(
        [
            "### Start of the iterations and looks at the error",
            "Successive batches against the same prototypes, epsilon 0.1, threshold "
            f"{OT.threshold:g}. *Warm* starts from the meta side's potential of the batch before. "
            "The other columns are milliseconds of a solve from a cold start, by the iterations "
            "between two looks at the error.",
            table([*header, *(f"every {look}, ms" for look in LOOKS)], rows),
            f"A warm start spares a tenth of the iterations or more in {len(fewer)} of "
            f"{len(records)} cases. `EntropicOT` starts cold and looks every 10 iterations.",
        ]
    )


@partial(jax.jit, static_argnums=2)
def _solve(cost, g, look):
    n, m = cost.shape
    with jax.numpy_rank_promotion("allow"):
        problem = linear_problem.LinearProblem(
            geometry.Geometry(cost_matrix=cost, epsilon=OT.epsilon),
            a=jnp.full(n, 1 / n),
            b=jnp.full(m, 1 / m),
        )
        # ott-jax updates the meta side first, so a start is the other side's potential.
        warm = -OT.epsilon * (
            jnp.log(n) + jax.nn.logsumexp((g[None, :] - cost) / OT.epsilon, axis=1)
        )
        f = jnp.where(jnp.any(g != 0), warm, jnp.zeros(n))
        solver = sinkhorn.Sinkhorn(
            threshold=OT.threshold, inner_iterations=look, max_iterations=OT.max_iterations
        )
        output = solver(problem, init=(f, g))
    return output.potentials[1], output.n_iters


def _solve_all(costs, g, look):
    return [_solve(cost, g, look) for cost in costs]
