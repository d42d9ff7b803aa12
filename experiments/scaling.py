"""What a step moves between devices, and what the closed form needs of memory; from the program.

python -m experiments.scaling --markdown=docs/scaling.md

Nothing is run: the step is traced with abstract arrays, and its collectives are read off. With
--tables it is instead the hours and memory that their rows need on this device, ImageNet-LT,
Places-LT and iNaturalist 2018 among them; some steps of each are run on made features:

python -m experiments.scaling --tables=table3,table4,table6
"""

from absl import flags

from experiments.benchmarks import large_sets
from experiments.benchmarks.footprint import memory, traffic
from experiments.cli import MARKDOWN, run_app
from experiments.configs.kinds import LISTED
from experiments.documents.markdown import rewrite
from experiments.studies.tables import TABLES as ALL

PER_DEVICE = flags.DEFINE_integer("per_device", 32, "Examples of a batch that a device has.")
TABLES = flags.DEFINE_list("tables", [], "Of images by published lists: table3, table4, table6.")
ROWS = flags.DEFINE_list("rows", [], "Of these; by default those beside one of the paper's.")
MADE = flags.DEFINE_integer("made", 2000, "Examples that are made, two a class at the least.")
ENCODE = flags.DEFINE_bool("encode", True, "Whether the extraction is timed.")


def main(argv: list[str]) -> None:
    """Prints the tables, and writes them into a document."""
    del argv
    if TABLES.value:
        _check()
        texts = large_sets.report(TABLES.value, ROWS.value, MADE.value, ENCODE.value)
    else:
        texts = {"scaling": "\n\n".join([traffic(PER_DEVICE.value), memory()])}
    print("\n\n".join(texts.values()))
    for name, text in texts.items():
        if MARKDOWN.value:
            rewrite(MARKDOWN.value, text, name)


def _check() -> None:
    known = [name for name, table in ALL.items() if table.dataset in LISTED]
    for name in TABLES.value:
        if name not in known:
            raise ValueError(f"--tables has {name!r}; choose of {', '.join(known)}.")
        for row in ROWS.value:
            if row not in ALL[name].rows:
                raise ValueError(f"--rows has {row!r}, and {name} has no such row.")


if __name__ == "__main__":
    run_app(main, keep_compiled=False)
