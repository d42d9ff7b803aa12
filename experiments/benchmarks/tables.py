"""Markdown of the measurements, and the part of a document that holds it."""

import importlib.util
import os
import pathlib
import platform
from collections.abc import Sequence
from importlib import metadata

import jax
import numpy as np

from experiments.benchmarks.timing import cores
from otrw_jax.files import write_text

PACKAGES = ("jax", "jaxlib", "flax", "optax", "ott-jax", "lineax", "numpy")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells):
        first, *rest = (str.ljust if i == 0 else str.rjust for i in range(len(cells)))
        aligned = [
            align(cell, w) for align, cell, w in zip([first, *rest], cells, widths, strict=True)
        ]
        return f"| {' | '.join(aligned)} |"

    dashes = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(dashes), *map(line, rows)])


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:#.3g}".rstrip(".")


def scientific(value: float) -> str:
    """A small error, as 1.2e-04."""
    return f"{value:.1e}"


def spread(
    values: Sequence[float | None], digits: int = 2, deviation: bool = True, sign: bool = False
) -> str:
    """Mean ± standard deviation; the mean alone of one value; nothing of none."""
    values = [value for value in values if value is not None]
    if not values:
        return ""
    text = f"{np.mean(values):{'+' if sign else ''}.{digits}f}"
    if deviation and len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.{digits}f}"
    return text


def machine() -> dict:
    """What the numbers depend on: processor, device, load, versions."""
    device = jax.devices()[0]
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "device": f"{device.platform}: {device.device_kind}",
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES}
        | ({"torch": metadata.version("torch")} if importlib.util.find_spec("torch") else {}),
    }


def section(command: str, machine: dict, parts: list[str]) -> str:
    """The whole text: command, machine, then the parts."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    about = (
        f"Printed by `{command}` on {machine['cpu']}, {machine['cores']} cores, device "
        f"{machine['device']}; {versions}. Processes waiting for a core at the start (load of the "
        f"last minute): {machine['load']:.1f}. Times are medians, ratios those "
        "of the ratios of neighbouring repeats."
    )
    return "\n\n".join(["## Benchmarks", about, *parts])


def rewrite(path: str | pathlib.Path, text: str, name: str = "benchmark") -> None:
    """Puts `text` between the markers of that name in a document; the rest of it stays as it is.

    A document without the markers gets them at its end; one that does not exist is created.

    Args:
        path: the Markdown file.
        text: what stands between the markers afterwards.
        name: of the markers, `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        ValueError: one marker is there without the other, or more than once, or out of order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    path = pathlib.Path(path)
    document = path.read_text() if path.exists() else "# Results\n"
    counts = document.count(begin), document.count(end)
    if counts == (0, 0):
        document = f"{document.rstrip()}\n\n{begin}\n{end}\n"
    elif counts != (1, 1) or document.index(begin) > document.index(end):
        raise ValueError(f"{path} must hold {begin} and then {end}, once each, or neither.")
    before, rest = document.split(begin)
    after = rest.split(end)[1]
    write_text(path, f"{before}{begin}\n{text.strip()}\n{end}{after}")


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
