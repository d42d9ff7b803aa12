"""The code of the page about weights for other programs runs as it stands, in its order."""

import pathlib
import re

import numpy as np
import pytest

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "weights_elsewhere.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def scope():
    """What the first block leaves behind."""
    names = {}
    exec(BLOCKS[0], names)
    return names


def block_of(word):
    (block,) = (block for block in BLOCKS[1:] if word in block)
    return block


def test_the_weights_balance_the_classes(scope):
    weights, labels = scope["weights"], scope["labels"]
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-5)
    np.testing.assert_allclose(np.bincount(labels, weights) / 105, 1 / 3, atol=0.05)


def test_in_a_loss_and_a_sampler_of_pytorch(scope):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    names = dict(scope)
    exec(block_of("reduction="), names)
    assert torch.isfinite(names["losses"]).all() and names["w"].shape == (35,)
    exec(block_of("sampler="), names)
    seen = np.bincount([names["labels"][i] for i in names["sampler"]], minlength=3)
    assert seen[2] > 15  # Of 105 draws; by the classes' sizes it is five.


def test_in_scikit_learn(scope):
    names = dict(scope)
    exec(block_of("LogisticRegression"), names)
    exec(block_of("OTReweightedClassifier"), names)
    for name in ("classifier", "model"):
        assert names[name].score(names["meta_features"], names["meta_labels"]) > 0.7
    np.testing.assert_allclose(names["model"].sample_weight_, names["weights"], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_in_lightgbm(scope):
    pytest.importorskip("lightgbm")
    names = dict(scope)
    exec(block_of("lightgbm"), names)
    assert names["trees"].score(names["features"], names["labels"]) > 0.7


def test_every_block_is_run():
    assert len(BLOCKS) == 6
