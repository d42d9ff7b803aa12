"""What images on the disk cannot be trained with, told before any image is read; weights."""

import sys

import jax
import numpy as np
import pytest

from experiments.configs import photos
from experiments.configs.checks.fields import check_config
from experiments.configs.checks.relations import check_controls
from experiments.configs.kinds import IMAGE_FOLDERS
from experiments.configs.overrides import check_overrides
from experiments.program.experiment import Experiment
from experiments.program.images import files
from experiments.program.layout import seeds_at_once
from otrw_jax.models.backbones.resnet_imagenet import ResNetImageNet
from otrw_jax.models.weights.resnet import load_resnet
from otrw_jax.training.devices import pick_devices
from tests.experiments.photos.shared import small
from tests.models.weights import made
from tests.models.weights.test_resnet import decoupled, in_pth


@pytest.fixture
def unread(monkeypatch):
    """Fails where images are looked for."""
    monkeypatch.setattr(files, "load_long_tailed", lambda *_, **__: pytest.fail("looked for"))
    monkeypatch.setattr(files, "load_image_folder", lambda *_, **__: pytest.fail("looked for"))


@pytest.mark.parametrize(
    "fields, text",
    [
        ({"data.side": 40}, "data.side is 40, and data.stored is 36: the crop must be no larger"),
        ({"data.jitter": 1.5}, r"data.jitter is 1.5; it must be a number in \[0, 1\]"),
        ({"data.mean": (0.1,)}, r"data.mean is \(0.1,\); it must be .* in \(0, 1\], 3 of them"),
        ({"data.deviation": 4 * (0.5,)}, r"data.deviation is \(0.5, 0.5, 0.5, 0.5\); it must be"),
        ({"steps_per_call": 0}, "steps_per_call is 0, and images that stay on the disk do not fit"),
        ({"checkpoint_every": 2}, "checkpoint_every is 2, and what is done of an epoch goes on fr"),
        ({"save_every": 0}, "save_every is 0; it must be a whole number of 1 or more"),
        ({"model.depth": 20}, "model.depth is 20; it must be 50, 101 or 152."),
        (
            {"recipe": "crt", "stage2.crt.feature_copies": 1},
            "stage2.crt.feature_copies is 1, and nothing is kept .*large_sets.py:dataset=imagenet",
        ),
        ({"recipe": "bbn"}, "bbn splits the last block of its network, and that of model.name='re"),
    ],
)
def test_fields_that_do_not_go_together(fields, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        small(tmp_path, **fields)


@pytest.mark.parametrize(
    "recipe, fields",
    [
        ("otrw_global", {}),
        ("ncm", {}),
        ("oltr", {}),
        ("otrw_paper", {"stage2.otrw_paper.choices.measure": "dynamic"}),
    ],
)
def test_recipes_that_need_all_images_are_refused_before_any_is_read(
    recipe, fields, tmp_path, unread
):
    with pytest.raises(ValueError) as raised:
        Experiment(small(tmp_path, recipe, **fields))
    assert str(raised.value) == (
        f"{recipe}: its stage2 reads all training images at the start of an epoch, and those of "
        "this config stay on the disk; train it on features of them: "
        f"--config=experiments/configs/large_sets.py:dataset=imagenet_lt,recipe={recipe}."
    )
    config = photos.get_config(f"recipe={recipe}")
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=rf"image_folder.py:recipe={recipe}\.$"):
        Experiment(config)


def test_a_folder_and_weights_that_are_not_there(tmp_path, unread):
    config = small(tmp_path)
    config.data.folder = ""
    with pytest.raises(ValueError, match=r"data.folder is empty; give --config.data.folder=DIR"):
        Experiment(config)
    with pytest.raises(FileNotFoundError, match=r"model.weights: .*none.pth is no file; give the"):
        Experiment(small(tmp_path, **{"model.weights": str(tmp_path / "none.pth")}))
    (tmp_path / "wide.pth").write_bytes(in_pth(made.resnet(50), decoupled))
    fields = {"model.weights": str(tmp_path / "wide.pth"), "model.width": made.WIDTH + 1}
    with pytest.raises(ValueError, match="does not hold the network that is asked for"):
        Experiment(small(tmp_path, **fields))


@pytest.mark.parametrize("package", ["grain", "simplejpeg"])
def test_a_missing_extra_is_named(package, tmp_path, unread, monkeypatch):
    for name in [*sys.modules]:
        if name.startswith(("experiments.program.images.streamed", "otrw_jax.data.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError) as raised:
        Experiment(small(tmp_path))
    assert str(raised.value) == (
        f"{package} is not installed; pip install 'otrw_jax[stream]' brings it."
    )


@pytest.mark.parametrize("classes", [made.CLASSES, made.CLASSES + 1])
def test_a_network_begins_with_the_weights_of_a_file(classes, place, tmp_path, capsys):
    tensors = made.resnet(50)
    if classes != made.CLASSES:
        tensors |= {"fc.weight": np.ones((classes, 32 * made.WIDTH)), "fc.bias": np.ones(classes)}
    (tmp_path / "a.pth").write_bytes(in_pth(tensors, decoupled))
    config = small(place, **{"model.weights": str(tmp_path / "a.pth")})
    experiment = Experiment(config)
    prepared = experiment.prepare(0)
    program = experiment.program(prepared)
    capsys.readouterr()
    variables = program.initial_variables(0)
    fits = classes == made.CLASSES
    said = "is from" if not fits else "and the last layer are from"
    assert f"resnet_imagenet: the backbone {said} {tmp_path / 'a.pth'}" in capsys.readouterr().out
    weights = load_resnet(tmp_path / "a.pth", ResNetImageNet(50, made.WIDTH), head=True)
    found = variables["params"]["backbone"], variables["state"]
    jax.tree.map(np.testing.assert_array_equal, found, (weights.backbone, weights.state))
    head = weights.head if fits else program.fresh_head(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["head"], head)
    # Another file is another beginning: its runs are of another subset.
    other = Experiment(small(place)).source.split(0)
    assert other.fingerprint != prepared.split.fingerprint


def test_the_settings_of_first_stages_are_those_of_the_paper_s_text():
    for name, depth, epochs, batch, rate, milestones, decay in (
        ("imagenet_lt", 50, 200, 128, 0.1, (60, 80), 5e-4),
        ("places_lt", 152, 30, 32, 0.01, (10, 20), 5e-3),
        ("inaturalist2018", 50, 60, 64, 0.01, (20, 40), 5e-3),
    ):
        config = photos.get_config(f"dataset={name}")
        first, optimizer = config.stage1, config.stage1.optimizer
        assert (config.model.depth, first.epochs, first.batch_size) == (depth, epochs, batch)
        assert (optimizer.learning_rate, optimizer.milestones) == (rate, milestones)
        assert (optimizer.decay, optimizer.momentum) == (0.1, 0.9)
        assert optimizer.weight_decay == decay
        assert config.data.jitter == (0.0 if name == "inaturalist2018" else 0.4)
        assert config.stage2.otrw_paper.choices.trainable == "head/.*"
        assert not any(section.feature_copies for section in config.stage2.values())
    assert set(photos.SETTINGS) == set(IMAGE_FOLDERS)


def test_controls_are_for_features():
    text = r"the controls train heads on features .*; take --config=experiments/configs/image_fold"
    with pytest.raises(ValueError, match=text):
        check_controls(photos.get_config("recipe=ce"))


def test_another_set_has_fields_of_its_own():
    file = "experiments/configs/photos.py"
    config = photos.get_config()
    config.data.name = "places_lt"
    with pytest.raises(ValueError, match=rf"give --config={file}:dataset=places_lt\."):
        check_overrides(config, file, {"data.name": "places_lt"})
    with pytest.raises(ValueError, match="dataset='imagenet'; choose image_folder, imagenet_lt"):
        photos.get_config("dataset=imagenet")


def test_seeds_are_trained_in_turn():
    config = photos.get_config()
    for given in (None, 0, 3):
        config.seeds_at_once = given
        check_config(config)
        assert seeds_at_once(config, pick_devices(1), 3) == 1
