"""A folder of images of your own: every head, re-weighting and control on features of a network.

--config=experiments/configs/image_folder.py:recipe=otrw_global --config.data.folder=DIR

`data.folder` holds a folder of images for each class, or train, val and test with these, or is a
table of `path,label[,split]`, as docs/your_own_data.md describes it. Images become features of
EfficientNet-Lite0, trained on ImageNet, once; they are kept in `data_dir`. All else is as of
features in files (experiments/configs/features.py).
"""

from ml_collections import ConfigDict

from experiments.configs import features


def get_config(arguments: str = "") -> ConfigDict:
    """The config; arguments: recipe, imbalance_factor (as it is where none is given), folder."""
    config = features.get_config(arguments)
    config.data.update(
        {
            "name": "image_folder",
            # TFDS's folder, for what is found out about the images and for their features.
            "data_dir": "",
            # So many files may be left out that are missing, damaged or no images.
            "max_excluded": 0,
            # Of each class, taken for testing where there is no test part.
            "test_share": 0.2,
        }
    )
    config.encoder = ConfigDict(
        {
            # A file of weights; empty for those that the extra `efficientnet` installs.
            "weights": "",
            # Height and width that images are brought to; the weights were trained at 224.
            "side": 224,
            # "center": the largest square in the middle; "none": the whole, its aspect ratio lost.
            "crop": "center",
        }
    )
    return config
