"""Loss and gradient of the OT problem, against PyTorch's autograd through a Sinkhorn loop."""

import statistics
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.problems import clustered_problem, exact_gradient, relative_error
from experiments.benchmarks.timing import Effort, interleaved, median_ratio
from experiments.documents.markdown import number, scientific, table
from otrw_jax.ot.entropic import EntropicOT, ot_loss

SHAPES = ((16, 10), (50, 2), (128, 100), (128, 1000))
GOAL = 10.0
EARLY = EntropicOT(max_iterations=10)


def run(effort: Effort) -> list[dict]:
    """One record a shape."""
    import torch

    from experiments.benchmarks import pytorch

    forward = jax.jit(partial(ot_loss, ot=EntropicOT()))
    solve = jax.jit(jax.value_and_grad(forward))
    early = jax.jit(jax.value_and_grad(partial(ot_loss, ot=EARLY)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    records = []
    for shape in SHAPES:
        problem = clustered_problem(*shape, seed=0)
        exact = exact_gradient(problem, float(EntropicOT().epsilon))
        weights, cost = (torch.tensor(np.asarray(x), device=device) for x in problem)

        def theirs(stop, weights=weights, cost=cost):
            leaf = weights.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(pytorch.ot_loss(leaf, cost, stop), leaf)
            return gradient

        def their_value(weights=weights, cost=cost):
            with torch.no_grad():
                return pytorch.ot_loss(weights, cost, pytorch.CONVERGED)

        calls: dict[str, Any] = {
            "ours": lambda problem=problem: solve(*problem),
            "early": lambda problem=problem: early(*problem),
            "converged": lambda theirs=theirs: theirs(pytorch.CONVERGED).cpu(),
            "loose": lambda theirs=theirs: theirs(pytorch.LOOSE).cpu(),
            "value": lambda problem=problem: forward(*problem),
            "converged value": lambda their_value=their_value: their_value().cpu(),
        }
        seconds = interleaved(calls, effort)
        gradients = {
            **{name: calls[name]()[1] for name in ("ours", "early")},
            **{name: calls[name]().numpy() for name in ("converged", "loose")},
        }
        records.append(
            {
                "section": "published",
                "shape": list(shape),
                "seconds": {name: statistics.median(s) for name, s in seconds.items()},
                "repeats": seconds,
                "ratios": {
                    name: median_ratio(seconds[name], seconds["ours"])
                    for name in ("converged", "loose")
                }
                | {"converged, early": median_ratio(seconds["converged"], seconds["early"])},
                "errors": {name: relative_error(g, exact) for name, g in gradients.items()},
            }
        )
    return records


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    rows = []
    for r in records:
        cells = []
        for name in ("ours", "early"):
            cells += [number(1e3 * r["seconds"][name]), scientific(r["errors"][name])]
        for name in ("converged", "loose"):
            cells += [
                number(1e3 * r["seconds"][name]),
                number(r["ratios"][name]),
            ]
            if name == "converged":
                cells.append(number(r["ratios"]["converged, early"]))
            cells.append(scientific(r["errors"][name]))
        cells += [number(1e3 * r["seconds"][name]) for name in ("value", "converged value")]
        rows.append([f"{r['shape'][0]}×{r['shape'][1]}", *cells])
    missed = {
        name: [f"{r['shape'][0]}×{r['shape'][1]}" for r in records if r["ratios"][name] < GOAL]
        for name in ("converged", "converged, early")
    }
    header = ["batch×atoms", "ours, ms", "error", "early, ms", "error"]
    header += ["PyTorch converged, ms", "/ ours", "/ early", "error"]
    header += ["PyTorch loose, ms", "/ ours", "error"]
    header += ["value, ours, ms", "value, PyTorch, ms"]
    return "\n\n".join(
        [
            "### OT loss and gradient against PyTorch",
            "Value and gradient in the weights, combined cost, epsilon 0.1, at most 200 "
            "iterations; *early* takes Newton steps after ten of them "
            f"(`EntropicOT(max_iterations={EARLY.max_iterations})`). "
            "PyTorch in eager mode, autograd through a log-domain loop. *Converged* "
            "stops as ours does, at an L1 error of the marginals of 1e-5, looked at every ten "
            "iterations; *loose* as the authors' program, once a potential changes by less than "
            "0.1 in sum. Errors of the gradient are relative, against float64. *Value* is the "
            "time of the iterations alone, without a gradient.",
            table(header, rows),
            f"Goal: the converged one at least {GOAL:g} times ours; missed: "
            f"{', '.join(missed['converged']) or 'nowhere'}; with early Newton steps: "
            f"{', '.join(missed['converged, early']) or 'nowhere'}.",
        ]
    )
