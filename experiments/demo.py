"""Shows on real data what re-weighting does: tables of recipes, pictures, and a checkpoint.

python -m experiments.demo --workdir=runs/demo
python -m experiments.demo --data=sst2 --manual_dir=DIR --workdir=runs/demo_sst2
python -m experiments.demo --data=image_folder --workdir=runs/demo_images
python -m experiments.demo --data=modelnet10 --manual_dir=DIR --workdir=runs/demo_clouds

The folder of images is written first, of CIFAR-10 where it is prepared, else of the digits.
Second stages are compared with as many further epochs of cross-entropy, seed by seed.
The slower the data, the fewer the seeds (`--seeds=0,1,2` for others), so that each ends in minutes.
"""

import pathlib
import time

import numpy as np
from absl import flags
from rich.console import Console

from experiments.cli import WORKDIR, run_app, seeds
from experiments.configs.kinds import BY_COUNTS, IMAGE_FOLDERS
from experiments.documents.demo import COLUMNS, differences, summary, table
from experiments.documents.paired import same_epochs
from experiments.pictures.drawing import draw
from experiments.program.experiment import Experiment
from experiments.program.images.written_images import at_hand, write_images
from experiments.runs.identity import flatten
from experiments.runs.predictions import predictions
from experiments.runs.restoring import restore
from experiments.runs.training import train
from experiments.studies.demonstrations import DEMOS
from otrw_jax.files import write_json

DATA = flags.DEFINE_enum("data", "digits", list(DEMOS), "What the recipes are shown on.")
MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", "", "Where the Stanford trees or the clouds lie, if not to be downloaded."
)


def main(argv: list[str]) -> None:
    """Trains every recipe on every seed, prints the tables, draws the pictures."""
    del argv
    clock, demo = time.perf_counter(), DEMOS[DATA.value]
    if MANUAL_DIR.value and DATA.value not in BY_COUNTS:
        raise ValueError(
            f"--manual_dir={MANUAL_DIR.value} has no meaning for --data={DATA.value}; leave it out."
        )
    workdir = pathlib.Path(WORKDIR.value or "runs/demo")
    chosen, place = seeds(demo.seeds), MANUAL_DIR.value
    if DATA.value in IMAGE_FOLDERS:
        place = str(workdir / "images")
        print(f"{place}: JPEGs of {at_hand()}", flush=True)
        write_images(at_hand(), pathlib.Path(place))
    results, others = {}, {}
    for recipe in demo.recipes:
        config = demo.config(recipe, place)
        config.checkpoint_every, config.evaluate_every = 20, 5
        others[recipe] = same_epochs(recipe, flatten(config.to_dict()))
        experiment = Experiment(config)
        runs = []
        for seed in chosen:
            first = "" if recipe == "ce" else workdir / "ce" / f"seed_{seed}"
            run = train(experiment, workdir / recipe / f"seed_{seed}", seed, seed, first)
            runs.append([run["last"].get(column, np.nan) for column in COLUMNS])
        results[recipe] = np.array(runs)
    write_json(workdir / "demo.json", {"seeds": chosen, **summary(results)})
    console = Console(width=100)
    console.print(table(results, len(chosen), demo))
    console.print(differences(results, others, demo))
    run = workdir / demo.pictured / f"seed_{chosen[0]}"
    for path in draw(run):
        print(f"picture: {path}")
    print(f"evaluate a checkpoint: python -m experiments.evaluate --workdir={run}")
    if DATA.value in IMAGE_FOLDERS:
        _predict(run, pathlib.Path(place) / "test")
    seconds = time.perf_counter() - clock
    print(f"{seconds:.0f} s, and with imports {time.process_time():.0f} s of processor time")


def _predict(run: pathlib.Path, images: pathlib.Path) -> None:
    """Says what a run's network takes an image of each class for."""
    files = [str(min(folder.iterdir())) for folder in sorted(images.iterdir())]
    for file, name, probability in predictions(restore(run), files).found:
        print(f"{file}: {name}, {probability:.0%}")
    print(f"predict other images: python -m experiments.predict --workdir={run} {images}")


if __name__ == "__main__":
    run_app(main)
