"""Stock images seen as features of a network: computed once, drawn as the images, in a table."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import reproduce
from experiments.configs import cifar_features, cifar_lt, features
from experiments.configs.checks.fields import check_config
from experiments.configs.kinds import ENCODED
from experiments.documents.results import document
from experiments.program.experiment import Experiment
from experiments.program.images import encoded_images
from experiments.program.images.encoded_images import EncodedImagesSource
from experiments.recipes import RECIPES
from experiments.recipes.optimizers import make_optimizer
from experiments.recipes.transport import reweighting_of
from experiments.studies.records import read
from experiments.studies.rows import protocols_of, row_config
from experiments.studies.tables import TABLES
from otrw_jax.data.sources import Dataset
from otrw_jax.methods.base import Batch, Examples, TrainingData
from otrw_jax.methods.ot.weight_net import ot_weight_net
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import flax_model
from otrw_jax.ot.nets import AttentionWeightNet
from tests.methods.problem import jit

pytestmark = pytest.mark.usefixtures("rank_promotion")

TRAIN, TEST = 30, 3
"""Images of each of ten classes."""


class MadeEncoder:
    """Each channel's mean, in place of the network; counts the images that it is given."""

    def __init__(self, side, weights):
        self.fingerprint = hashlib.sha256(repr((side, weights)).encode()).hexdigest()
        self.images = 0

    def __call__(self, images):
        self.images += len(images)
        return images.mean((1, 2)).astype(np.float32)


def made_images(name, seed=0):
    rng = np.random.default_rng(seed)
    labels = [rng.permutation(np.repeat(np.arange(10, dtype=np.int32), n)) for n in (TRAIN, TEST)]
    images = [rng.integers(0, 25, (len(c), 4, 4, 3)) + 20 * c[:, None, None, None] for c in labels]
    train, test = (x.astype(np.uint8) for x in images)
    return Dataset(name, train, labels[0], test, labels[1], tuple("abcdefghij"))


@pytest.fixture
def encoders(monkeypatch):
    """Made images and networks in the place of the real ones; the networks that were made."""
    made = []

    def make(*arguments):
        made.append(MadeEncoder(*arguments))
        return made[-1]

    monkeypatch.setattr(encoded_images, "load_dataset", lambda name, data_dir: made_images(name))
    monkeypatch.setattr(encoded_images, "efficientnet_lite0_encoder", make)
    return made


def small(root, recipe="ce", **encoder):
    config = cifar_features.get_config(f"imbalance_factor=4,recipe={recipe}")
    config.data.update({"data_dir": str(root), "meta_per_class": 2, "held_out_per_class": 3})
    config.encoder.update(encoder)
    check_config(config)
    return config


def test_features_are_those_of_the_encoder_computed_once(encoders, tmp_path, capsys):
    source = Experiment(small(tmp_path)).source
    assert isinstance(source, EncodedImagesSource)
    images = made_images("cifar10")
    for part in ("train", "test"):
        features = getattr(source.dataset, f"{part}_inputs")
        expected = getattr(images, f"{part}_inputs").mean((1, 2)).astype(np.float16)
        np.testing.assert_array_equal(features[np.arange(len(expected))], expected)
        labels = getattr(source.dataset, f"{part}_labels")
        np.testing.assert_array_equal(labels, getattr(images, f"{part}_labels"))
    assert source.dataset.class_names == images.class_names
    out = capsys.readouterr().out
    assert "2 examples of each class of the train part, which are not trained on" in out
    again = Experiment(small(tmp_path, "otrw_global")).source
    np.testing.assert_array_equal(again.dataset.test_inputs, source.dataset.test_inputs)
    assert [encoder.images for encoder in encoders] == [10 * (TRAIN + TEST), 0]


def test_other_images_weights_and_views_have_features_of_their_own(encoders, monkeypatch, tmp_path):
    first = Experiment(small(tmp_path)).source.split(0).content
    assert Experiment(small(tmp_path)).source.split(1).content == first
    others = [Experiment(small(tmp_path, side=64)).source.split(0).content]
    others += [Experiment(small(tmp_path, weights="mine.pth")).source.split(0).content]
    monkeypatch.setattr(encoded_images, "load_dataset", lambda name, _: made_images(name, 1))
    others += [Experiment(small(tmp_path)).source.split(0).content]
    assert len({first, *others}) == 4
    assert [e.images > 0 for e in encoders] == [True, False, True, True, True]


@pytest.mark.parametrize("dataset", cifar_lt.DATASETS)
@pytest.mark.parametrize("factor", [20.0, 200.0])
def test_what_is_drawn_is_what_table_1_draws_of_the_images(dataset, factor):
    row = TABLES["cifar_features"].rows["otrw_global"]
    config = row_config(row, f"{dataset}_features", factor, {})
    images = cifar_lt.get_config(f"dataset={dataset},imbalance_factor={factor}").data
    drawn = ("imbalance_factor", "profile", "meta_per_class", "held_out_per_class")
    assert {name: config.data[name] for name in drawn} == {name: images[name] for name in drawn}
    assert ENCODED[config.data.name] == dataset and config.encoder.side == 128
    assert protocols_of(config.data.name) == ("paper",)
    check_config(config)


def test_what_is_no_cifar_is_refused():
    with pytest.raises(ValueError, match="dataset='digits'; choose cifar10 or cifar100"):
        cifar_features.get_config("dataset=digits")
    config = cifar_features.get_config("recipe=ce")
    config.data.imbalance_factor = None
    with pytest.raises(ValueError, match="cifar10_features is balanced as it is; give a number"):
        check_config(config)


def test_every_row_of_the_table_names_the_encoder(encoders, tmp_path):
    sets = [f"data.data_dir={tmp_path}", "data.meta_per_class=2", "data.held_out_per_class=3"]
    sets += ["stage1.epochs=1", "stage2.otrw_global.epochs=1", "evaluate_every=1"]
    arguments = ["--imbalance_factor=4", "--recipes=ce,otrw_global", "--seeds=0,1"]
    arguments += [f"--set={one}" for one in sets]
    records = tmp_path / "records"
    with flagsaver.flagsaver():
        argv = ["reproduce", f"--workdir={tmp_path / 'runs'}", f"--records={records}"]
        reproduce.main(flags.FLAGS([*argv, *arguments, "cifar_features"]))
    recorded = read(records / "cifar_features.jsonl")
    assert {record["encoder"] for record in recorded} == {"EfficientNet-Lite0 at 128²"}
    assert {record["row"] for record in recorded} == {"ce", "otrw_global"}
    text = document(records)
    lines = [line for line in text.splitlines() if line.startswith(("| `ce`:", "| `otrw_global`:"))]
    assert len(lines) == 2 and all("(EfficientNet-Lite0 at 128²)" in line for line in lines)
    assert TABLES["cifar_features"].note in text


def test_second_stages_that_train_have_no_decay_and_the_others_are_as_they_were():
    stages = cifar_features.get_config().stage2
    once = {name for name, recipe in RECIPES.items() if (recipe.second or {}).get("epochs") == 1}
    assert "ncm" in once
    decays = {name: section.optimizer.weight_decay for name, section in stages.items()}
    assert decays == {name: 5e-4 if name in once else 0.0 for name in stages}
    assert stages.otrw_released.optimizer.learning_rate == 0.05
    assert {stages[name].optimizer.learning_rate for name in ("cb", "otrw_paper")} == {0.2}


@pytest.mark.parametrize(
    ("get_config", "width"), [(features.get_config, 64), (cifar_features.get_config, 1280)]
)
def test_the_net_moves_at_its_rate_on_features_of_length_one(get_config, width):
    section = get_config("recipe=otrw_net,imbalance_factor=4").stage2.otrw_net
    rng, labels = np.random.default_rng(0), np.repeat([0, 1], [80, 20])
    means = rng.normal(size=(2, width))
    train, meta = (means[c] + rng.normal(size=(len(c), width)) for c in (labels, np.arange(2)))
    train, meta = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (train, meta))
    examples = (Examples(jnp.float32(z), c) for z, c in ((train, labels), (meta, np.arange(2))))
    data = TrainingData(*examples, 2)
    model, net = flax_model(MLP(()), LinearHead(2)), AttentionWeightNet()
    optimizer, net_optimizer = (
        make_optimizer(one, 1) for one in (section.optimizer, section.weight_optimizer)
    )
    choices = reweighting_of(section.choices, 2)
    method = ot_weight_net(model, optimizer, net, net_optimizer, 2, choices)
    state = method.init(jax.random.key(0), model.init(jax.random.key(1), data.train.inputs), data)
    batch = Batch(data.train.inputs, data.train.labels, np.arange(100))
    step = jit(lambda state: method.step(state, batch, data.meta)[0])
    for _ in range(50):
        state = step(state)
    weights = 100 * np.asarray(net.apply({"params": state.net_params}, train))
    assert weights[labels == 1].mean() > 1.2 * weights[labels == 0].mean()
