"""Numbers and tables in Markdown, and the part of a document that holds them."""

import pathlib
from collections.abc import Iterable

import numpy as np

from otrw_jax.files import write_text


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
    values: Iterable[float | None], digits: int = 2, deviation: bool = True, sign: bool = False
) -> str:
    """Mean ± standard deviation; the mean alone of one value; nothing of none."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    text = f"{np.mean(known):{'+' if sign else ''}.{digits}f}"
    if deviation and len(known) > 1:
        text += f" ± {np.std(known, ddof=1):.{digits}f}"
    return text


def rewrite(path: str | pathlib.Path, text: str, name: str) -> None:
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
