"""The kinds of data sets, which decide the fields that `data` and `encoder` of a config have."""

from ml_collections import ConfigDict

SENTENCES = ("sst2", "sst5")
"""Seen as features of an encoder; drawn by `data.counts`."""

CLOUDS = ("modelnet10",)
"""Of points; drawn by `data.counts`."""

LISTED = {"imagenet_lt": 256.0, "places_lt": 996.0, "inaturalist2018": 500.0}
"""Long-tailed sets of images by published lists: name to largest over smallest class."""

IMAGE_FOLDERS = ("image_folder", *LISTED)
"""Of the user's (`data.folder`), seen as features of a trained network, or streamed."""

FEATURES = ("features", *IMAGE_FOLDERS)
"""Of any encoder, in files of the user's (`data.folder`), or of images in a folder. All other data
sets are images; both are drawn by imbalance factor, and features also taken as they are."""

ENCODED = {"cifar10_features": "cifar10", "cifar100_features": "cifar100"}
"""Of stock images, seen as features of a trained network: name to that of the images. They are
drawn as the images are, by imbalance factor."""

BY_COUNTS = (*SENTENCES, *CLOUDS)


def is_streamed(config: ConfigDict) -> bool:
    """Whether a config's images stay on the disk, in place of features that are kept of them."""
    return "stored" in config.data


def place_field(name: str) -> str:
    """The field of `data` that says where a data set is."""
    return "folder" if name in FEATURES else "data_dir"
