"""Trains a recipe; run again on the same directory it goes on where it was.

python -m experiments.train --config=experiments/configs/digits.py --workdir=runs/digits

Several processes train one run, over all their devices, where each is started with the same
command and --coordinator=host:port --num_processes=2 --process_id=0 (1, ...); under srun and on TPU
pods without.

With --extend a run goes on from its last checkpoint under more epochs of its last stage, or another
rate of the stage that it is in; its config.json says so. The epochs that are done stay as they are.
"""

import pathlib

import numpy as np
from absl import flags

from experiments import processes
from experiments.cli import CONFIG, WORKDIR, run_app
from experiments.experiment import Experiment
from experiments.network_files import of_seed
from experiments.overrides import run_config
from experiments.run import Run, train, train_together
from otrw_jax.checkpoints import write_json
from otrw_jax.devices import is_first_process

EXTEND = flags.DEFINE_bool(
    "extend", False, "Go on with a run under other epochs and rates than it has had until now."
)


def main(argv: list[str]) -> None:
    """Trains one run, or one a seed in subfolders with their mean in `results.json`."""
    del argv
    processes.join()
    experiment, workdir = Experiment(run_config(CONFIG)), pathlib.Path(WORKDIR.value)
    config = experiment.config
    if not config.seeds:
        seeds = config.seed, config.subset_seed
        results = train(experiment, workdir, *seeds, config.stage1_from, EXTEND.value)
        if is_first_process():
            print_results(results)
        return
    folders = {seed: f"seed_{seed}" for seed in config.seeds}
    runs = [
        Run(workdir / folder, seed, seed, of_seed(config.stage1_from, seed))
        for seed, folder in folders.items()
    ]
    results = mean_results(train_together(experiment, runs, EXTEND.value))
    if is_first_process():
        write_json(workdir / "results.json", {"seeds": list(config.seeds), **results})
        print_results(results)


def mean_results(runs: list[dict]) -> dict:
    """Mean over seeds of each of the three results, and of several seeds the deviation."""
    return {
        name: {key: _mean([run[name][key] for run in runs]) for key in runs[0][name]}
        for name in runs[0]
        if runs[0][name]
    }


def _mean(values: list[float]) -> dict[str, float]:
    spread = {"std": float(np.std(values, ddof=1))} if len(values) > 1 else {}
    return {"mean": float(np.mean(values)), **spread}


def print_results(results: dict) -> None:
    """Prints the three results; the best are those of the highest balanced accuracy."""
    names = {
        "last": "last epoch",
        "best_held_out": "best by the held-out part",
        "best_test": "best by the test set itself",
    }
    for name, title in names.items():
        if not results.get(name):
            continue
        shown = {key: value for key, value in results[name].items() if key != "epoch"}
        text = ", ".join(f"{key} {_number(value)}" for key, value in shown.items())
        print(f"{title}: {text}")


def _number(value) -> str:
    if not isinstance(value, dict):
        return f"{value:.2f}"
    spread = f" ± {value['std']:.2f}" if "std" in value else ""
    return f"{value['mean']:.2f}{spread}"


if __name__ == "__main__":
    run_app(main, "config", "workdir")
