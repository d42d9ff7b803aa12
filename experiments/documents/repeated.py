"""How far the cells of the controls move where they are run again."""

import numpy as np

from experiments.studies.controls.grid import TRANSPORTS


def repeated(records: list[dict], titles: dict[str, str]) -> str:
    """A sentence on runs of one setting, nothing where it was run once.

    Args:
        records: of `experiments.controls`, of one setting; those with the seeds and the subsets of
            the last are compared with it.
        titles: of the selections of an epoch that are told of, by name.
    """
    last = records[-1]
    same = [r for r in records if all(r[k] == last[k] for k in ("seeds", "fingerprints"))]
    if len(same) < 2:
        return ""
    moves = {which: _moves(same, which) for which in titles}
    moved = {cell for of in moves.values() for cell, move in of.items() if move.any()}
    count = len(last["cells"])
    text = (
        f"Run {len(same)} times, on different processors: {count - len(moved)} of {count} cells "
        "have the same errors, whatever the seed and the selection"
    )
    if not moved:
        return f"{text}."
    kinds = [title for ot, title in TRANSPORTS.items() if any(c.endswith(f"/{ot}") for c in moved)]
    seed = ", ".join(
        f"{max(move.max() for move in moves[which].values()):.2f} ({title})"
        for which, title in titles.items()
    )
    return (
        f"{text}; the others are of *{', '.join(kinds)}*. There the error of one seed moves by at "
        f"most {seed}. {WHY}"
    )


WHY = """XLA compiles for the vector instructions of a processor, which round in ways of their own
(`XLA_FLAGS=--xla_cpu_max_isa=SSE4_2` and `AVX2` differ likewise on one machine), and its many small
steps of weights pass that on; by the held-out part, which is small, another epoch may then be
chosen."""


def _moves(records: list[dict], which: str) -> dict[str, np.ndarray]:
    """Of each cell the range of every seed's errors over the records, in percent."""
    return {
        cell: np.ptp([record["cells"][cell][which] for record in records], axis=0)
        for cell in records[-1]["cells"]
    }
