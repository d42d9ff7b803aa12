"""What the tests of runs on images on the disk share: a short network, and images in lists."""

import pytest

from otrw_jax.models.backbones.resnet_imagenet import BLOCKS
from tests.data.builders.long_tailed_files import made_set
from tests.experiments.photos.shared import COUNTS, SHORT
from tests.models.weights import made


@pytest.fixture(scope="module", autouse=True)
def short_network():
    """One block a stage, of the network and of weights that are made for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BLOCKS, 50, SHORT)
        patch.setitem(made.RESNETS, 50, SHORT)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images of three classes in lists, and a data folder."""
    root = tmp_path_factory.mktemp("photos")
    made_set(root / "images", COUNTS, validation=4, test=3)
    return root
