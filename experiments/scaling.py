"""What a step moves between devices, and what the closed form needs of memory; from the program.

python -m experiments.scaling --markdown=docs/scaling.md

Nothing is run: the step is traced with abstract arrays, and its collectives are read off.
"""

from absl import flags

from experiments.benchmarks.footprint import memory, traffic
from experiments.cli import MARKDOWN, run_app
from experiments.documents.markdown import rewrite

PER_DEVICE = flags.DEFINE_integer("per_device", 32, "Examples of a batch that a device has.")


def main(argv: list[str]) -> None:
    """Prints the tables, and writes them into a document."""
    del argv
    text = "\n\n".join([traffic(PER_DEVICE.value), memory()])
    print(text)
    if MARKDOWN.value:
        rewrite(MARKDOWN.value, text, "scaling")


if __name__ == "__main__":
    run_app(main, keep_compiled=False)
