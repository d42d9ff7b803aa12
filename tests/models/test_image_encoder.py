"""Images to features: batches, sizes, grey, and names under which features are kept."""

import json
import pathlib

import jax
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from otrw_jax.models import image_encoder
from otrw_jax.models.backbones.efficientnet import standardised
from otrw_jax.models.image_encoder import (
    ImageEncoder,
    efficientnet_lite0_encoder,
    resnet_encoder,
)
from otrw_jax.models.weights.placing import Weights
from tests.models.weights import made

DATA = pathlib.Path(__file__).parent / "weights" / "data"
GOLDEN = json.loads((DATA / "networks.json").read_text())


class Pixels:
    """A network whose features are its inputs."""

    def apply(self, variables, x, train):
        assert not train
        return x.reshape(x.shape[0], -1)

    def __repr__(self):
        return "Pixels()"


def pixels_encoder(side, weights=None, standardise=lambda x: x):
    return ImageEncoder(Pixels(), weights or Weights({}, {}, None), standardise, side)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "made.safetensors"
    safetensors.numpy.save_file(made.efficientnet(), path)
    return path


def test_it_is_the_network_in_evaluation_mode(path, monkeypatch):
    """By the logits that PyTorch has of these images."""
    monkeypatch.setattr(image_encoder, "BATCH", 2)
    z = efficientnet_lite0_encoder(made.SIDE, path)(made.images())
    assert z.shape == (2, 1280) and z.dtype == np.float32
    tensors = made.efficientnet()
    logits = z @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    np.testing.assert_allclose(logits, GOLDEN["efficientnet"], atol=1e-4)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 70])
def test_batches_are_put_together(count):
    images = made.images(count, 3)
    np.testing.assert_array_equal(pixels_encoder(3)(images), images.reshape(count, -1))


@pytest.mark.parametrize("side", [5, 31])
def test_sizes_are_those_of_pillow(side):
    """Smaller and larger, to a rounding of the pixels."""
    images = (
        96 + made.images(2, 12)[:, :, :9] // 4
    )  # Pillow cuts what overshoots in each direction.
    found = pixels_encoder(side)(images).reshape(2, side, side, 3)
    for image, ours in zip(images, found, strict=True):
        resized = PIL.Image.fromarray(image).resize((side, side), PIL.Image.Resampling.BICUBIC)
        np.testing.assert_allclose(ours, np.asarray(resized, float), atol=1.5)


def test_pixels_stay_from_0_to_255():
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[:, 4:] = 255
    found = pixels_encoder(24)(images)
    assert found.min() == 0 and found.max() == 255


def test_grey_images_have_three_equal_colours():
    images = made.images(2, 8)[..., :1]
    found = pixels_encoder(8)(images)
    np.testing.assert_array_equal(found, np.repeat(images, 3, axis=3).reshape(2, -1))


def test_no_images_have_no_features():
    assert pixels_encoder(8)(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 192)


def test_the_fingerprint_tells_what_decides_the_features():
    def weights(value, name="a"):
        return Weights({name: np.full(3, value)}, {}, None)

    prints = [
        pixels_encoder(side, given).fingerprint
        for side, given in [(8, weights(1.0)), (9, weights(1.0)), (8, weights(2.0))]
    ]
    prints += [pixels_encoder(8, weights(1.0, "b")).fingerprint]
    swapped = pixels_encoder(8, weights(1.0), lambda x: x[..., ::-1])
    prints += [swapped.fingerprint, pixels_encoder(8, weights(1.0), lambda x: x / 255).fingerprint]
    prints += [pixels_encoder(8, weights(1.0), standardised).fingerprint]
    assert len(set(prints)) == 7
    assert pixels_encoder(8, weights(1.0)).fingerprint == prints[0]


def test_the_fingerprint_of_the_network_that_records_name_stays(path):
    """Features are kept under it, and records' subsets depend on it."""
    assert efficientnet_lite0_encoder(128, path).fingerprint == "051ed0f6c9c72e5f"


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3)),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
    ],
)
def test_what_is_no_image(images):
    with pytest.raises(ValueError, match="give uint8"):
        pixels_encoder(8)(images)


@pytest.mark.parametrize("side", [0, 2.5])
def test_an_impossible_side(side):
    with pytest.raises(ValueError, match=f"side is {side}; it must be 1 or more and whole"):
        pixels_encoder(side)


@pytest.mark.parametrize("count", [0, 1, 64, 70, 131])
def test_over_devices_the_features_are_the_same(count):
    images = made.images(count, 3)
    spread = ImageEncoder(
        Pixels(), Weights({}, {}, None), lambda x: x, 3, devices=jax.devices()[:4]
    )
    assert spread.batch == 128 and pixels_encoder(3).batch == 32
    np.testing.assert_array_equal(spread(images), pixels_encoder(3)(images))
    assert spread.fingerprint == pixels_encoder(3).fingerprint


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    safetensors.numpy.save_file(made.resnet(50), path)
    return path


def test_a_resnet_is_that_of_pytorch(resnet, monkeypatch):
    monkeypatch.setattr(image_encoder, "BATCH", 2)
    # The stored logits are of pixels less 127, over 128.
    colours = (127 / 255,) * 3, (128 / 255,) * 3
    z = resnet_encoder("resnet50", resnet, made.SIDE, *colours)(made.images())
    tensors = made.resnet(50)
    logits = z @ tensors["fc.weight"].T + tensors["fc.bias"]
    np.testing.assert_allclose(logits, GOLDEN["resnet50"], atol=2e-4, rtol=1e-4)


def test_colours_are_part_of_what_features_are_kept_under(resnet):
    others = (0.466, 0.471, 0.380), (0.195, 0.194, 0.192)
    prints = {resnet_encoder("resnet50", resnet, 32, *c).fingerprint for c in (IMAGENET, others)}
    prints.add(resnet_encoder("resnet50", resnet, 32, IMAGENET[0], others[1]).fingerprint)
    assert len(prints) == 3


def test_a_network_of_another_depth_or_name_is_refused(resnet):
    with pytest.raises(ValueError, match="does not hold the network that is asked for"):
        resnet_encoder("resnet101", resnet, 32, *IMAGENET)
    with pytest.raises(ValueError, match="network is 'resnet18'; choose one of resnet50, resnet1"):
        resnet_encoder("resnet18", resnet, 32, *IMAGENET)
