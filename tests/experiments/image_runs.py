"""What tests of runs on folders of images share: classes, and configs of seconds."""

from experiments.configs import image_folder
from experiments.configs.checks.fields import check_config

CLASSES = ("cat", "dog", "eel")


def small(root, recipe="ce", folder="mine", **data):
    config = image_folder.get_config(f"recipe={recipe},folder={root / folder}")
    config.data.update({"data_dir": str(root / "data"), "meta_per_class": 2, **data})
    config.encoder.side = 32
    for section in (config.stage1, *config.stage2.values()):
        section.update({"epochs": 1, "batch_size": 6})
    check_config(config)
    return config
