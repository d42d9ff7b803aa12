"""What the demo shows on each data set: recipes, their configs, whose pictures are drawn."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ml_collections import ConfigDict

from experiments.configs import digits, image_folder, modelnet10, sst
from experiments.program.images.written_images import SIDE

TITLES = {
    "ce": "cross-entropy",
    "continued": "continued, whole network",
    "continued_head": "continued, head",
    "cb": "class-balanced stage 2",
    "otrw_paper": "OT, the paper's text",
    "otrw_released": "OT, the authors' program",
    "otrw_global": "OT, global closed form",
    "otrw_global_sampling": "OT, sampling by global weights",
}
NET = {"otrw_net": "OT, weight net"}
# Those that train on the kept features of a frozen backbone, in seconds.
QUICK = {
    name: TITLES[name]
    for name in ("ce", "continued", "continued_head", "cb", "otrw_paper", "otrw_global")
}


class Demo(NamedTuple):
    """What is shown on a data set.

    Attributes:
        title: of the table.
        recipes: by name, what the table calls them.
        config: of a recipe's run, by the folder where the data lie ("" where they are to be
            downloaded, or need none).
        pictured: the recipe whose pictures are drawn.
        seeds: how many by default.
    """

    title: str
    recipes: Mapping[str, str]
    config: Callable[[str, str], ConfigDict]
    pictured: str
    seeds: int


def _digits(recipe: str, manual_dir: str) -> ConfigDict:
    del manual_dir
    return digits.get_config(f"recipe={recipe}")


def _sentences(recipe: str, manual_dir: str) -> ConfigDict:
    """A small part of SST-2, on the encoder as it is."""
    config = sst.get_config(f"sst2,minority=10,fine_tuning=0,recipe={recipe}")
    config.data.update({"first": 1200, "counts": (300, 10), "extra_per_class": 0})
    config.data.manual_dir = manual_dir
    return config


def _clouds(recipe: str, manual_dir: str) -> ConfigDict:
    """Fewer points, and the lighter network."""
    config = modelnet10.get_config(f"minority=4,backbone=pointnet,recipe={recipe}")
    config.data.update({"points": 128, "manual_dir": manual_dir})
    config.stage1.epochs = 7
    config.stage1.optimizer.learning_rate = 1e-3
    for stage in config.stage2.values():
        stage.epochs = 20
    return config


def _image_folder(recipe: str, place: str) -> ConfigDict:
    """Long-tailed subsets of the images, small, with what is kept of them beside."""
    config = image_folder.get_config(f"recipe={recipe},imbalance_factor=50,folder={place}")
    config.data.data_dir = f"{place}_kept"
    config.encoder.side = SIDE
    return config


DEMOS = {
    "digits": Demo("Long-tailed digits", TITLES, _digits, "otrw_released", 5),
    "sst2": Demo("A part of SST-2, 300 to 10", TITLES | NET, _sentences, "otrw_net", 2),
    "image_folder": Demo("A folder of JPEGs, long-tailed", TITLES, _image_folder, "otrw_global", 3),
    "modelnet10": Demo("ModelNet10, 100 to 4", QUICK | NET, _clouds, "otrw_paper", 1),
}
