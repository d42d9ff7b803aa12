"""Sentences from trees to results: features of a small encoder, kept; recipes; a resumed run."""

import json
import pathlib

import numpy as np
import pytest

from experiments import encoding
from experiments.configs import sst
from experiments.experiment import Experiment
from experiments.run import train
from otrw_jax.checkpoints import read_json

pytestmark = pytest.mark.usefixtures("cached", "rank_promotion")

TINY = pathlib.Path(__file__).parents[1] / "backbones" / "data" / "tiny_bert"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Made trees of two kinds of sentences, of words that the small encoder knows."""
    words = [w for w in (TINY / "vocab.txt").read_text().split() if w.isalpha()]
    good, bad = words[: len(words) // 2], words[len(words) // 2 :]
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("sst")
    trees = root / "manual" / "sst" / "trees"
    trees.mkdir(parents=True)
    for name, count in (("train", 120), ("dev", 4), ("test", 60)):
        lines = []
        for row in range(count):
            label, own = ((3, good), (1, bad))[row % 2]
            sentence = rng.choice(own, 6)
            tree = f"(2 {sentence[0]})"
            for word in sentence[1:]:
                tree = f"({label} {tree} (2 {word}))"
            lines.append(tree)
        (trees / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def small(folders, recipe):
    config = sst.get_config(f"sst2,minority=4,recipe={recipe}")
    config.data.update(
        {
            "data_dir": str(folders / "tfds"),
            "manual_dir": str(folders / "manual"),
            "counts": (20, 4),
            "meta_per_class": 3,
            "held_out_per_class": 3,
            "extra_per_class": 2,
        }
    )
    config.encoder.folder = str(TINY)
    config.model.hidden = (16,)
    config.stage1.update({"epochs": 2, "batch_size": 8})
    for stage in config.stage2.values():
        stage.update({"epochs": min(2, stage.epochs), "batch_size": 8})
    return config


@pytest.mark.parametrize("recipe", ["ce", "otrw_net", "meta_logistic", "hu"])
def test_a_recipe_on_sentences(folders, recipe, tmp_path):
    experiment = Experiment(small(folders, recipe))
    prepared = experiment.prepare(0)
    assert prepared.data.raw.inputs.shape == (24, 16)
    assert prepared.split.counts.tolist() == [20, 4] and len(prepared.split.extra) == 4
    results = train(experiment, tmp_path, 0, 0)
    assert 0 <= results["last"]["error"] <= 80
    assert read_json(tmp_path / "run.json")["counts"] == [20, 4]
    assert train(experiment, tmp_path, 0, 0) == results


def test_features_are_kept_and_follow_the_encoder(folders, monkeypatch):
    first = Experiment(small(folders, "ce")).dataset
    assert first.train_inputs.shape == (len(first.train_labels), 16)
    np.testing.assert_allclose(np.linalg.norm(first.train_inputs, axis=1), 1, rtol=1e-4)

    def again(*args):
        raise AssertionError("encoded twice")

    monkeypatch.setattr(encoding, "_encode", again)
    np.testing.assert_array_equal(
        Experiment(small(folders, "ce")).dataset.train_inputs, first.train_inputs
    )
    config = small(folders, "ce")
    config.encoder.pooling = "cls"
    with pytest.raises(AssertionError, match="encoded twice"):
        Experiment(config)


def test_features_stay_with_their_sentences(tmp_path):
    """Sentences of many lengths, more than a batch of them: as each encoded alone."""
    words = [w for w in (TINY / "vocab.txt").read_text().split() if w.isalpha()]
    rng = np.random.default_rng(1)
    texts = np.array([" ".join(rng.choice(words, rng.integers(1, 20))) for _ in range(70)])
    config = sst.get_config().encoder
    together = encoding.features_of(texts, TINY, config, tmp_path)
    assert together.shape == (70, 16)
    for row in (0, 13, 47, 69):
        alone = encoding.features_of(texts[row : row + 1], TINY, config, tmp_path)
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-4, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_the_protocols_of_the_paper():
    assert sst.get_config("sst2,minority=20").data.counts == (1000, 20)
    assert sst.get_config("sst5,minority=60").data.counts == (500, 60, 500, 500, 500)
    with pytest.raises(ValueError, match="'sst3' is no data set here; begin with sst2 or sst5"):
        sst.get_config("sst3")
    assert json.dumps(sst.get_config().data.to_dict())
