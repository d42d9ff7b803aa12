"""Readings of the paper's weight net on sentences, and the rates that are tried of each.

Every reading has a few pairs of rates, the network's and the net's. The pair is chosen by the mean
error on the held-out part at one imbalance of a data set, and serves at all of them
(`experiments/documents/readings.py`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

_STAGE = "stage2.otrw_net"
_NET = "options.otrw_net.net"

# Largest over smallest class of the setting that rates are chosen at: 1000:20 and 500:50.
CHOSEN_AT = {"sst2": 50.0, "sst5": 10.0}
# What stands beside the readings, from the same features: before stage 2, and the meta set alone.
REFERENCES = ("ce", "meta_centroids")


class Reading(NamedTuple):
    """A reading of the text.

    Attributes:
        about: what it is.
        rates: pairs of learning rates that are tried, the network's (alpha) and the net's (beta).
        changes: what its config has different.
    """

    about: str
    rates: tuple[tuple[float, float], ...]
    changes: Mapping[str, Any] = {}


# A sum over a batch whose weights sum to one is a mean; `averaged` divides that by 50 once more.
_SUMMED = ((0.01, 1.0), (0.01, 10.0), (0.03, 1.0), (0.03, 10.0))

READINGS = {
    "text": Reading("eq. 13, rows, at the rates of the paper's table 10", ((1e-4, 0.04),)),
    "rows": Reading("eq. 13, mean of the softmax of each row of scores", _SUMMED),
    "diagonal": Reading(
        "eq. 13, softmax of each example's score with itself",
        _SUMMED,
        {_NET: "attention_diagonal"},
    ),
    "hidden": Reading("eq. 11, one hidden layer", _SUMMED, {_NET: "mlp"}),
    "averaged": Reading(
        "`rows`, the weighted losses averaged over the batch as in Algorithm 2",
        ((0.01, 1.0), (0.5, 1.0), (0.5, 10.0)),
        {f"{_STAGE}.choices.reduction": "mean"},
    ),
    "meta": Reading(
        "`rows`, with 10 × the cross-entropy of the meta set, of which the text has nothing",
        ((1e-4, 1.0), (3e-4, 1.0), (3e-4, 10.0), (1e-3, 1.0)),
        {f"{_STAGE}.choices.meta_cross_entropy": 10.0},
    ),
}


def rows() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every row: name to recipe and changes."""
    return {name: (name, {}) for name in REFERENCES} | {
        row_of(name, rates): ("otrw_net", {**_rates(*rates), **reading.changes})
        for name, reading in READINGS.items()
        for rates in reading.rates
    }


def row_of(reading: str, rates: tuple[float, float]) -> str:
    """The row of a reading at a pair of rates."""
    return f"{reading}_{rates[0]:g}_{rates[1]:g}"


def _rates(network: float, net: float) -> dict[str, float]:
    return {
        f"{_STAGE}.optimizer.learning_rate": network,
        f"{_STAGE}.choices.virtual_learning_rate": network,
        f"{_STAGE}.weight_optimizer.learning_rate": net,
    }
