"""What OT adds to the best way of training a head without it, of the cells of the controls."""

import numpy as np

from experiments.documents.markdown import spread
from experiments.documents.paired import verdict
from experiments.studies.controls.grid import BASES, META_USES, TRANSPORTS


def best_cells(cells: dict[str, dict]) -> str:
    """Sentences that set the best cell with an OT step against the best without any.

    Both are the one with the least mean error on the held-out part; their test errors are compared,
    seed by seed: among all cells, then among those that train on no meta example.

    Args:
        cells: of a record of `experiments.controls`.

    Returns:
        Nothing where the record has no held-out errors.
    """
    if any("held_out_error" not in cell for cell in cells.values()):
        return ""
    named = {tuple(name.split("/")): cell for name, cell in cells.items()}
    of_ot_alone = {name: cell for name, cell in named.items() if name[1] == "none"}
    return (
        f"Chosen by the held-out part alone, {_compared(named)}. Where the meta set serves OT "
        f"alone, {_compared(of_ot_alone)}."
    )


def _compared(named: dict[tuple[str, ...], dict]) -> str:
    plain, with_ot = (
        {name: cell for name, cell in named.items() if (name[2] != "none") == ot}
        for ot in (False, True)
    )
    (first, errors), (second, with_weights) = _best(plain), _best(with_ot)
    differences = with_weights - errors
    seeds = f"{len(differences)} seed{'s' if len(differences) > 1 else ''}"
    return (
        f"of {len(plain)} cells without OT {first} comes first ({spread(errors, 1)}), of "
        f"{len(with_ot)} with it {second} ({spread(with_weights, 1)}); the second less the first "
        f"{spread(differences, 1, sign=True)} ({seeds}): {verdict(differences, least=True)}"
    )


def _best(named: dict[tuple[str, ...], dict]) -> tuple[str, np.ndarray]:
    """Title and test errors by seed of the cell with the least held-out error."""
    base, meta, ot = name = min(named, key=lambda n: np.mean(named[n]["held_out_error"]))
    title = f"{BASES[base]}, meta set {META_USES[meta]}"
    if ot != "none":
        title += f", *{TRANSPORTS[ot]}*"
    return f"“{title}”", np.array(named[name]["best_held_out"])
