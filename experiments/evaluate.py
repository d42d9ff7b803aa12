"""Evaluates a checkpoint of a run: metrics, confusion matrix, learned weights.

python -m experiments.evaluate --workdir=runs/digits --checkpoint=stage1
"""

import pathlib

import numpy as np

from experiments.cli import CHECKPOINT, DATA_DIR, WORKDIR, define_path, run_app
from experiments.program.scores import statistics, summary
from experiments.runs.learned_weights import export_weights
from experiments.runs.restoring import restore
from otrw_jax.files import write_json
from otrw_jax.metrics import per_class_accuracy

WEIGHTS = define_path("weights", None, "CSV or Parquet file for the learned weights.")


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


if __name__ == "__main__":
    run_app(main, "workdir")
