"""Trains a recipe; run again on the same directory it goes on where it was.

python -m experiments.train --config=experiments/configs/digits.py --workdir=runs/digits

Several processes train one run, over all their devices, where each is started with the same
command and --coordinator=host:port --num_processes=2 --process_id=0 (1, ...); under srun and on TPU
pods without.

With --extend a run goes on from its last checkpoint under more epochs of its last stage, or another
rate of the stage that it is in; its config.json says so. The epochs that are done stay as they are.
"""

import pathlib

from absl import flags

from experiments.cli import CONFIG, WORKDIR, processes, run_app
from experiments.configs.overrides import run_config
from experiments.program.experiment import Experiment
from experiments.runs.network_files import stage1_of_seed
from experiments.runs.open_run import Run
from experiments.runs.outcomes import mean_results, result_lines
from experiments.runs.training import train, train_together
from otrw_jax.files import write_json
from otrw_jax.training.devices import is_first_process

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
            print("\n".join(result_lines(results)))
        return
    folders = {seed: f"seed_{seed}" for seed in config.seeds}
    runs = [
        Run(workdir / folder, seed, seed, stage1_of_seed(config.stage1_from, seed))
        for seed, folder in folders.items()
    ]
    results = mean_results(train_together(experiment, runs, EXTEND.value))
    if is_first_process():
        write_json(workdir / "results.json", {"seeds": list(config.seeds), **results})
        print("\n".join(result_lines(results)))


if __name__ == "__main__":
    run_app(main, "config", "workdir")
