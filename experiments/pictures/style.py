"""What pictures share: resolution, colours and markers, ticks, the check of an array, the file."""

from pathlib import Path

import numpy as np
from jaxtyping import Array, Int, Real
from matplotlib.figure import Figure

from otrw_jax.files import replacing

DPI = 120
GREY = "0.35"
# Okabe and Ito's colours, told apart by colour-blind readers; line styles and markers differ too.
LINES = [
    {"color": "#D55E00", "marker": "o", "linestyle": "-"},
    {"color": "#0072B2", "marker": "s", "linestyle": "--"},
    {"color": "#009E73", "marker": "^", "linestyle": "-."},
    {"color": "#CC79A7", "marker": "D", "linestyle": ":"},
    {"color": "#000000", "marker": "v", "linestyle": "-"},
]


def sparse(count: int) -> Int[np.ndarray, "shown"]:
    """Indices of at most 20 evenly spaced items out of `count`, the first included."""
    return np.arange(0, count, -(-count // 20))


def check_shape(name: str, values: Real[Array | np.ndarray, "..."], shape: tuple) -> None:
    check(np.shape(values) == shape, f"{name}: shape is {np.shape(values)}; it must be {shape}")


def check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def save(figure: Figure, path: str | Path) -> None:
    """Writes the PNG, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there is intact.
    """
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=DPI)
