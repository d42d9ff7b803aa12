"""torchvision's and timm's ResNets: features of PyTorch from their files, and what is refused."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from otrw_jax.models.backbones.efficientnet import standardised
from otrw_jax.models.backbones.resnet_imagenet import ResNetImageNet
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import flax_model, predict
from otrw_jax.models.weights.resnet import load_resnet, load_resnet_for
from tests.models.weights import made, pth_files

GOLDEN = json.loads(pathlib.Path(__file__).with_name("data").joinpath("networks.json").read_text())
MODEL = flax_model(ResNetImageNet(50, made.WIDTH), LinearHead(made.CLASSES))
IMAGES = standardised(made.images())


@pytest.fixture
def write(tmp_path):
    def of(tensors, name="weights.safetensors"):
        path = tmp_path / name
        contiguous = {name: np.asarray(x, order="C") for name, x in tensors.items()}
        safetensors.numpy.save_file(contiguous, path)
        return path

    return of


def variables_of(weights):
    return {
        "params": {"backbone": weights.backbone, "head": weights.head},
        "state": weights.state,
    }


def load(path, depth=50, head=True):
    return load_resnet(path, ResNetImageNet(depth, made.WIDTH), head)


def assert_weights_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("depth", [50, 152])
def test_logits_are_those_of_pytorch(write, depth):
    model = flax_model(ResNetImageNet(depth, made.WIDTH), LinearHead(made.CLASSES))
    variables = variables_of(load(write(made.resnet(depth)), depth))
    logits = jax.jit(lambda v, x: predict(model, v, x))(variables, IMAGES)
    np.testing.assert_allclose(logits, GOLDEN[f"resnet{depth}"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("depth", [50, 101])
def test_variables_are_arranged_as_the_model_has_them(write, depth):
    model = flax_model(ResNetImageNet(depth, made.WIDTH), LinearHead(made.CLASSES))
    variables = variables_of(load(write(made.resnet(depth)), depth))
    wanted = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    found = jax.eval_shape(lambda: variables)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    assert jax.tree.leaves(found) == jax.tree.leaves(wanted)


def in_pth(tensors, arrange):
    """A zip file of PyTorch's that has tensors as some program arranges them."""
    arrays = {str(i): array for i, array in enumerate(tensors.values())}
    named = {
        name: pth_files.of_array(array, str(i)) for i, (name, array) in enumerate(tensors.items())
    }
    return pth_files.zip_file(arrange(named), arrays)


def parallel(tensors):
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def decoupled(tensors):
    """The files of Kang et al.: the network in two parts."""
    head = {name: tensor for name, tensor in tensors.items() if name.startswith("fc.")}
    rest = {name: tensor for name, tensor in tensors.items() if name not in head}
    parts = {"feat_model": parallel(rest), "classifier": parallel(head)}
    return {"epoch": 90, "state_dict_best": parts, "best_acc": 0.5, "centroids": None}


LAYOUTS = {
    "plain": lambda tensors: tensors,
    "parallel": parallel,
    "checkpoint": lambda tensors: {"epoch": 3, "arch": "resnet50", "state_dict": tensors},
    "checkpoint, parallel": lambda tensors: {"state_dict": parallel(tensors), "optimizer": {}},
    "model": lambda tensors: {"model": tensors, "args": None},
    "decoupled": decoupled,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(write, tmp_path, layout):
    tensors = made.resnet(50)
    path = tmp_path / "model.pth.tar"
    path.write_bytes(in_pth(tensors, LAYOUTS[layout]))
    assert_weights_equal(load(path), load(write(tensors)))


def test_the_head_is_read_where_it_is_asked_for(write):
    tensors = made.resnet(50)
    whole = load(write(tensors))
    without = {name: x for name, x in tensors.items() if not name.startswith("fc.")}
    for path in (
        write(tensors, "with.safetensors"),
        write(without, "without.safetensors"),
        write(tensors | {"scales": np.ones(3, np.float32)}, "scaled.safetensors"),
    ):
        weights = load(path, head=False)
        assert weights.head is None
        assert_weights_equal(weights[:2], whole[:2])
    with pytest.raises(ValueError) as error:
        load(write(without))
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        "fc.weight: expected (k, 128), found nothing",
        "fc.bias: expected (k), found nothing",
    ]


def test_half_precision_is_widened(write):
    tensors = made.resnet(50)
    half = {name: x.astype(np.float16 if x.ndim else int) for name, x in tensors.items()}
    weights = load(write(half))
    assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {jnp.dtype("float32")}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), weights, load(write(tensors))
    )


def test_all_tensors_that_do_not_match_are_listed(write):
    tensors = made.resnet(50)
    tensors["layer1.0.conv2.weight"] = np.zeros((4, 2, 3, 3), np.float32)
    tensors["layer2.0.downsample.1.running_var"][3] = np.nan
    tensors["layer1.0.bn1.weight"] = np.full(4, 1e300)
    tensors["layer5.0.conv1.weight"] = np.zeros((4, 4, 1, 1), np.float32)
    tensors["att.weight"] = np.zeros((), np.float32)
    tensors["fc.weight"] = np.zeros((3, 127), np.float32)
    del tensors["bn1.running_mean"], tensors["layer4.2.conv3.weight"]
    with pytest.raises(ValueError, match="8 tensors differ") as error:
        load(write(tensors))
    assert sorted(line.strip() for line in str(error.value).splitlines()[1:]) == [
        "att.weight: expected nothing, found ()",
        "bn1.running_mean: expected (4), found nothing",
        "fc.weight: expected (3, 128), found (3, 127)",
        "layer1.0.bn1.weight: expected finite numbers, found others",
        "layer1.0.conv2.weight: expected (4, 4, 3, 3), found (4, 2, 3, 3)",
        "layer2.0.downsample.1.running_var: expected finite numbers, found others",
        "layer4.2.conv3.weight: expected (128, 32, 1, 1), found nothing",
        "layer5.0.conv1.weight: expected nothing, found (4, 4, 1, 1)",
    ]


def test_another_depth_is_another_network(write):
    path = write(made.resnet(101))
    with pytest.raises(ValueError, match=r"layer3\.22\.bn3\.weight: expected nothing"):
        load(path, 50)
    with pytest.raises(ValueError, match=r"layer3\.35\.conv1\.weight: .* found nothing"):
        load(path, 152)


def test_broken_safetensors(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not tensors")
    with pytest.raises(ValueError, match=r"weights\.safetensors cannot be read as safetensors: "):
        load(path)


def test_safetensors_with_a_name_twice(write):
    x = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="of one name with and without 'module"):
        load(write({"bn1.bias": x, "module.bn1.bias": x}))


def test_nothing_of_pytorch_is_imported(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    load(write(made.resnet(50)))


@pytest.mark.parametrize("depth", made.RESNETS)
def test_installed_pytorch_agrees(tmp_path, depth):
    """On the same weights, in its own file, in evaluation mode."""
    torch = pytest.importorskip("torch")
    from tests.models.weights.data import make_networks

    network = make_networks.made_resnet(depth)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    weights = load(tmp_path / "weights.pth", depth)
    with torch.no_grad():
        expected = network(make_networks.inputs()).numpy()
    np.testing.assert_allclose(GOLDEN[f"resnet{depth}"], expected, atol=1e-4, rtol=1e-4)
    assert_weights_equal(weights, load_made(tmp_path, depth))


def load_made(folder, depth):
    path = folder / "made.safetensors"
    safetensors.numpy.save_file(made.resnet(depth), path)
    return load(path, depth)


def test_the_running_variance_is_biased_here_and_unbiased_in_pytorch(write):
    """A pass in training mode moves it by a tenth towards the variance of the batch."""
    torch = pytest.importorskip("torch")
    from tests.models.weights.data import make_networks

    network = make_networks.made_resnet(50)
    network.bn1.train()
    with torch.no_grad():
        network(make_networks.inputs())
    weights = load(write(made.resnet(50)))
    _, state = jax.jit(lambda v, x: MODEL.features(v, x, True))(variables_of(weights), IMAGES)
    start = made.resnet(50)["bn1.running_var"]
    biased = state["batch_stats"]["norm"]["var"] - 0.9 * start
    unbiased = network.bn1.running_var.numpy() - 0.9 * start
    places = len(IMAGES) * (made.SIDE // 2) ** 2
    np.testing.assert_allclose(unbiased, biased * places / (places - 1), rtol=1e-5)
    assert np.all(unbiased > biased * (1 + 0.5 / places))
    np.testing.assert_allclose(
        state["batch_stats"]["norm"]["mean"], network.bn1.running_mean.numpy(), rtol=1e-4, atol=1e-6
    )


def test_the_last_layer_is_read_where_it_fits(write):
    tensors, network = made.resnet(50), ResNetImageNet(50, made.WIDTH)
    without = {name: array for name, array in tensors.items() if not name.startswith("fc.")}
    whole = write(tensors)
    files = {
        "scaled": write(tensors | {"scales": np.ones(made.CLASSES, np.float32)}, "a.safetensors"),
        "without": write(without, "b.safetensors"),
    }
    fitting = load_resnet_for(whole, network, made.CLASSES)
    assert_weights_equal(fitting, load(whole))
    for path, classes in [(whole, 7), *((path, made.CLASSES) for path in files.values())]:
        found = load_resnet_for(path, network, classes)
        assert found.head is None
        assert_weights_equal(found.backbone, fitting.backbone)
