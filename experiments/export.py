"""Writes the network after a run's first stage into one file, which second stages start from.

python -m experiments.export --workdir=runs/ce --to=results/networks/cifar10_if100_ce.safetensors

Of a run on a folder of images, a .zip has the whole classifier at its end, with its preprocessing
and class names, for programs without this project (docs/your_own_data.md):

python -m experiments.export --workdir=runs/mine --to=classifier.zip
"""

import dataclasses
import pathlib

from experiments.cli import DATA_DIR, WORKDIR, define_path, run_app
from experiments.runs.identity import portable
from experiments.runs.network_files import SUFFIX, is_network_file, write_network
from experiments.runs.outcomes import three_results
from experiments.runs.predictions import CLASSIFIER, write_classifier
from experiments.runs.restoring import Restored, restore
from otrw_jax.files import read_json
from otrw_jax.training.checkpoints import Checkpoints

TO = define_path("to", None, f"The file, NAME{SUFFIX} or NAME{CLASSIFIER}.")

# Of a first stage's state, what a network file has, and what is of no use once it has ended.
KEPT_OR_SPENT = {"variables", "inner", "step", "key", "opt_state"}


def main(argv: list[str]) -> None:
    """Writes the file."""
    del argv
    if TO.value.endswith(CLASSIFIER):
        restored = restore(pathlib.Path(WORKDIR.value), "last", DATA_DIR.value or "")
        about = write_classifier(pathlib.Path(TO.value), restored)
        size = pathlib.Path(TO.value).stat().st_size
        print(f"written: {TO.value}, {size / 1e6:.1f} MB, {len(about['classes'])} classes")
        return
    if not is_network_file(TO.value):
        raise ValueError(f"--to={TO.value} must end in {SUFFIX} or {CLASSIFIER}.")
    about = export(pathlib.Path(WORKDIR.value), pathlib.Path(TO.value), DATA_DIR.value)
    size = pathlib.Path(TO.value).stat().st_size
    error = about["results"]["last"]["error"]
    print(f"written: {TO.value}, {size / 1e6:.1f} MB, test error {error:.2f} %")


def export(workdir: pathlib.Path, path: pathlib.Path, data_dir: str = "") -> dict:
    """Writes the network after a run's first stage into a file, and returns what its header says.

    Raises:
        FileNotFoundError: there is no run.
        CheckpointError: its first stage is not finished.
        ValueError: the first stage learns more than a network, such as weights.
    """
    restored = restore(workdir, "stage1", data_dir)
    _check_state(restored)
    program, split = restored.program, restored.prepared.split
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        history = checkpoints.record(program.ends[0])["history"]
    run = read_json(workdir / "run.json")
    about = {
        "config": portable(program.config),
        "fingerprint": split.fingerprint,
        "counts": split.counts.tolist(),
        **{name: run[name] for name in ("parameters", "versions", "device")},
        "results": three_results(history),
        "history": history,
    }
    write_network(path, restored.state.variables, about)
    return about


def _check_state(restored: Restored) -> None:
    """Refuses a state that holds more than the network and what ends with the stage."""
    state = restored.state
    for part in (state, getattr(state, "inner", state)):
        more = {field.name for field in dataclasses.fields(part)} - KEPT_OR_SPENT
        if more:
            raise ValueError(
                f"the first stage of {restored.program.config.recipe} learns "
                f"{', '.join(sorted(more))} beside its network, which a network file does not "
                "hold; start from its run directory instead."
            )


if __name__ == "__main__":
    run_app(main, "workdir", "to")
