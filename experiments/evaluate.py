"""Evaluates a checkpoint of a run: metrics, confusion matrix, learned weights.

python -m experiments.evaluate --workdir=runs/digits --checkpoint=stage1
"""

import csv
import pathlib

import numpy as np
from absl import flags

from experiments.cli import DATA_DIR, WORKDIR, define_path, run_app
from experiments.program.scores import statistics, summary
from experiments.runs.learned_weights import learned_weights
from experiments.runs.restoring import Restored, restore
from otrw_jax.files import replacing, write_json
from otrw_jax.metrics import per_class_accuracy

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "last", "last, a stage's name, best_held_out, or the number of an epoch."
)
WEIGHTS = define_path("weights", None, "CSV file for the learned weights.")


def main(argv: list[str]) -> None:
    """Writes evaluation.json and confusion.png into the run directory."""
    from experiments.pictures.classes import confusion_pictures  # Slow to import, with matplotlib.

    del argv
    workdir = pathlib.Path(WORKDIR.value)
    restored = restore(workdir, CHECKPOINT.value, DATA_DIR.value or "")
    program, prepared = restored.program, restored.prepared
    found = statistics(program, restored.stage, restored.state.variables, prepared)
    confusion = np.asarray(found["test"].confusion)
    evaluation = {
        "checkpoint": restored.number,
        "stage": restored.stage.name,
        "fingerprint": prepared.split.fingerprint,
        **{name: summary(part, prepared, program.config.shots) for name, part in found.items()},
        "per_class_accuracy": [100 * float(x) for x in per_class_accuracy(confusion)],
        "confusion": confusion.tolist(),
    }
    write_json(workdir / "evaluation.json", evaluation)
    title = f"{program.config.recipe}, epoch {restored.number}"
    picture = workdir / "confusion.png"
    confusion_pictures(picture, {title: confusion}, prepared.dataset.class_names)
    if WEIGHTS.value:
        export_weights(pathlib.Path(WEIGHTS.value), restored)
    print(f"epoch {restored.number} ({restored.stage.name}) of {workdir}")
    for name, value in evaluation["test"].items():
        print(f"  {name:18} {value:6.2f} %")
    print(f"written: {workdir / 'evaluation.json'}, {picture}")


def export_weights(path: pathlib.Path, restored: Restored) -> None:
    """Writes `id,label,weight`, ids being rows of the data set's training part.

    Raises:
        ValueError: the checkpoint's method learns no weights.
        OSError: the file cannot be written; what was there is intact.
    """
    weights = learned_weights(restored)
    if weights is None:
        raise ValueError(
            f"{restored.stage.name} of {restored.program.config.recipe} learns no weights; "
            "choose hu, or the second stage of an otrw recipe that learns them."
        )
    labels = np.asarray(restored.prepared.data.raw.labels)
    with replacing(path) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "weight"])
        ids = restored.prepared.split.train
        for row in zip(ids.tolist(), labels.tolist(), weights.tolist(), strict=True):
            writer.writerow(row)


if __name__ == "__main__":
    run_app(main, "workdir")
