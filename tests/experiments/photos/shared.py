"""What tests of runs share that train on images on the disk: a made set, configs, a real kill.

ResNet-50 has one block in each of its stages there, which is quick to compile.
"""

import os
import pathlib
import signal
import subprocess
import sys

import jax

from experiments.configs import photos
from experiments.configs.checks.fields import check_config
from experiments.recipes import RECIPES
from tests.models.weights import made

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
COUNTS = (16, 9, 7)
STEPS = sum(COUNTS) // 8
SHORT = (1, 1, 1, 1)
FIELDS = {
    "data.meta_per_class": 2,
    "data.stored": 36,
    "data.side": 32,
    "data.threads": 2,
    "model.width": made.WIDTH,
    "save_every": 2,
    "stage1.epochs": 2,
    "stage1.batch_size": 8,
    "stage1.optimizer.learning_rate": 0.001,
    "stage1.optimizer.schedule": "cosine",
    "stage1.optimizer.milestones": (),
}
"""Of a run of seconds, at a rate at which rounding stays rounding."""


def small(place, recipe="otrw_paper", **fields):
    """A config of a run on the images of a place."""
    config = photos.get_config(f"dataset=imagenet_lt,recipe={recipe},folder={place / 'images'}")
    config.data.data_dir = str(place / "data")
    config.update_from_flattened_dict(of_recipe(recipe) | fields)
    check_config(config)
    return config


def of_recipe(recipe):
    """The fields of a short run of a recipe."""
    second = {f"stage2.{recipe}.epochs": 2, f"stage2.{recipe}.batch_size": 8}
    return FIELDS | (second if RECIPES[recipe].second is not None else {})


PROGRAM = f"""
import os, signal, sys
sys.modules["torch"] = None
from otrw_jax.models.backbones.resnet_imagenet import BLOCKS
from otrw_jax.training.underway import Saver
BLOCKS[50] = {SHORT}
save, at = Saver.__call__, os.environ.get("KILL_AT")
def until(self, number, underway):
    save(self, number, underway)
    if f"{{number}} {{underway.done}}" == at:
        os.kill(os.getpid(), signal.SIGKILL)
Saver.__call__ = until
from experiments import train
from experiments.cli import run_app
run_app(train.main, "config", "workdir")
"""
"""The script that trains; where it is told so, it kills itself when steps of an epoch are saved.

PyTorch, which TensorBoard's writer would import where it is installed, is held back.
"""


def start(place, workdir, *arguments, recipe="otrw_paper", devices=0, kill_at="", **fields):
    """Starts the script on the images of a place, as the command line would.

    Args:
        place: of the images.
        workdir: the run directory.
        arguments: further flags.
        recipe: as of `small`, with the fields.
        devices: of the process; as many as here by default.
        kill_at: number of the epoch, over all stages from 0, and of the steps behind, as "1 2".
        fields: of the config, in place of those of a short run.
    """
    given = of_recipe(recipe) | {"data.data_dir": place / "data"} | fields
    config = f"experiments/configs/photos.py:dataset=imagenet_lt,recipe={recipe}"
    return subprocess.Popen(
        [
            *(sys.executable, "-c", PROGRAM, f"--config={config},folder={place / 'images'}"),
            *(f"--config.{name}={value}" for name, value in given.items()),
            *(f"--workdir={workdir}", *arguments),
        ],
        cwd=REPOSITORY,
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices or jax.device_count())}
        | {"KILL_AT": kill_at},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def killed(process):
    """Asserts that a process ends by a kill."""
    said = process.communicate(timeout=300)[0]
    assert process.returncode == -signal.SIGKILL, said
