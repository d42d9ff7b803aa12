"""Evaluates a checkpoint of a run: metrics, confusion matrix, learned weights.

python -m experiments.evaluate --workdir=runs/digits --checkpoint=stage1
python -m experiments.evaluate --workdir=runs/mine --on=FOLDER
"""

import hashlib
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int

from experiments.cli import CHECKPOINT, DATA_DIR, WORKDIR, define_path, run_app
from experiments.program.scores import statistics, summary
from experiments.runs.learned_weights import export_weights
from experiments.runs.predictions import examples_at
from experiments.runs.restoring import restore
from otrw_jax.files import read_json, write_json
from otrw_jax.metrics import per_class_accuracy

WEIGHTS = define_path("weights", None, "CSV or Parquet file for the learned weights.")
ON = define_path("on", None, "Images, or features, in place of the test part, by class names.")

MOST = 1000
"""Classes of which evaluation.json has the whole confusion matrix."""


def main(argv: list[str]) -> None:
    """Writes evaluation.json and confusion.png into the run directory; of others, by their name."""
    from experiments.pictures.classes import confusion_pictures  # Slow to import, with matplotlib.

    del argv
    workdir = pathlib.Path(WORKDIR.value)
    restored = restore(workdir, CHECKPOINT.value, DATA_DIR.value or "")
    name = ""
    if ON.value:
        place = pathlib.Path(ON.value).resolve()
        examples = examples_at(restored, place)
        name = name_of(place, workdir)
        prepared = restored.prepared._replace(test=examples, held_out=None)
        restored = restored._replace(prepared=prepared)
    program, prepared = restored.program, restored.prepared
    found = statistics(program, restored.stage, restored.state.variables, prepared)
    confusion = np.asarray(found["test"].confusion)
    evaluation: dict[str, Any] = {
        "checkpoint": restored.number,
        "stage": restored.stage.name,
        **({"on": str(place)} if ON.value else {}),
        "fingerprint": prepared.split.fingerprint,
        **{n: summary(part, prepared, program.config.shots) for n, part in found.items()},
        "per_class_accuracy": [
            None if np.isnan(x) else 100 * float(x)
            for x in np.asarray(per_class_accuracy(confusion))
        ],
        **listed(confusion),
    }
    report, picture = workdir / f"evaluation{name}.json", workdir / f"confusion{name}.png"
    write_json(report, evaluation)
    title = f"{program.config.recipe}, epoch {restored.number}"
    confusion_pictures(picture, {title: confusion}, prepared.dataset.class_names)
    if WEIGHTS.value:
        export_weights(pathlib.Path(WEIGHTS.value), restored)
    print(f"epoch {restored.number} ({restored.stage.name}) of {workdir}")
    for metric, value in evaluation["test"].items():
        print(f"  {metric:18} {value:6.2f} %")
    print(f"written: {report}, {picture}")


def listed(confusion: Int[np.ndarray, "k k"]) -> dict[str, list[list[int]]]:
    """The matrix; of more than `MOST` classes `[true, predicted, count]` of what is not zero."""
    if len(confusion) <= MOST:
        return {"confusion": confusion.tolist()}
    true, predicted = np.nonzero(confusion)
    counts = np.stack([true, predicted, confusion[true, predicted]], axis=1)
    return {"confusion_counts": counts.tolist()}


def name_of(place: pathlib.Path, workdir: pathlib.Path) -> str:
    """What the files of an evaluation on other images or features have in their names.

    It is that of the folder or file; with six digits of a hash of its path where the run has been
    evaluated on another of that name, whose files stay.
    """
    name = f"_{place.name if place.is_dir() else place.stem}"
    report = workdir / f"evaluation{name}.json"
    if report.exists() and read_json(report)["on"] != str(place):
        name += f"_{hashlib.sha256(str(place).encode()).hexdigest()[:6]}"
    return name


if __name__ == "__main__":
    run_app(main, "workdir")
