"""Builds docs/results.md from the records in results/, and from nothing else.

The list of the trained networks in results/networks is made of their headers likewise.

python -m experiments.report
"""

import pathlib

from experiments.cli import RECORDS, define_path, run_app
from experiments.documents import network_list
from experiments.documents.results import document
from otrw_jax.files import write_text

OUT = define_path("out", "docs/results.md", "The document.")


def main(argv: list[str]) -> None:
    """Writes the document, and the list of the networks where there are some."""
    del argv
    folder, out = pathlib.Path(RECORDS.value), pathlib.Path(OUT.value)
    write_text(out, document(folder))
    print(f"written: {out}")
    networks = network_list.document(folder / "networks")
    if networks:
        write_text(folder / "networks" / "README.md", networks)
        print(f"written: {folder / 'networks' / 'README.md'}")


if __name__ == "__main__":
    run_app(main)
