"""Sentences from trees to results: features of a small encoder, kept; recipes; a resumed run."""

import concurrent.futures
import json
import pathlib

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import sst
from experiments.figures import draw
from experiments.program import encoding, keeping
from experiments.program.data import Source
from experiments.program.experiment import Experiment
from experiments.program.fine_tuning import fine_tuned
from experiments.program.networks import make_model
from experiments.recipes import RECIPES
from experiments.runs.learned_weights import learned_weights
from experiments.runs.restoring import restore
from experiments.runs.training import train
from otrw_jax.files import read_json
from otrw_jax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("rank_promotion")

TINY = pathlib.Path(__file__).parents[1] / "models" / "backbones" / "data" / "tiny_bert"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Made trees of two kinds of sentences, of words that the small encoder knows."""
    words = [w for w in (TINY / "vocab.txt").read_text().split() if w.isalpha() and w.isascii()]
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
    config.encoder.fine_tuning.update({"epochs": 0, "batch_size": 2, "learning_rate": 1e-3})
    config.model.hidden = (16,)
    config.stage1.update({"epochs": 2, "batch_size": 8})
    for stage in config.stage2.values():
        stage.update({"epochs": min(2, stage.epochs), "batch_size": 8})
    return config


@pytest.fixture(scope="module")
def runs(folders, tmp_path_factory):
    """From a recipe to its experiment, its directory and its results."""
    folder, done = tmp_path_factory.mktemp("runs"), {}

    def run(recipe):
        if recipe not in done:
            experiment = Experiment(small(folders, recipe))
            source = run("ce")[1] if RECIPES[recipe].second is not None else ""
            results = train(experiment, folder / recipe, 0, 0, source)
            done[recipe] = experiment, folder / recipe, results
        return done[recipe]

    return run


@pytest.mark.parametrize("recipe", ["ce", "otrw_paper", "otrw_net", "meta_logistic"])
def test_a_recipe_on_sentences(runs, recipe):
    experiment, workdir, results = runs(recipe)
    prepared = experiment.prepare(0)
    assert prepared.dataset.name == "sst2"
    assert prepared.data.raw.inputs.shape == (24, 16)
    assert prepared.split.counts.tolist() == [20, 4] and len(prepared.split.extra) == 4
    assert 0 <= results["last"]["error"] <= 80
    assert read_json(workdir / "run.json")["counts"] == [20, 4]
    if recipe == "otrw_net":
        first = runs("ce")[1]
        assert train(experiment, workdir, 0, 0, first) == results


def seen(config, seed=0):
    """The data set as the network of a run sees it."""
    return Experiment(config).prepare(seed).dataset


def test_features_are_kept_and_follow_the_encoder(folders, monkeypatch):
    config = small(folders, "ce")
    config.encoder.unit_length = True
    first = seen(config)
    assert first.train_inputs.shape == (len(first.train_labels), 16)
    np.testing.assert_allclose(np.linalg.norm(first.train_inputs, axis=1), 1, rtol=1e-4)

    def again(*args):
        raise AssertionError("encoded twice")

    monkeypatch.setattr(encoding.Encoder, "__call__", again)
    np.testing.assert_array_equal(seen(config).train_inputs, first.train_inputs)
    config.encoder.pooling = "cls"
    with pytest.raises(AssertionError, match="encoded twice"):
        seen(config)


def test_features_that_cannot_be_kept_are_not_lost(folders, monkeypatch, capsys):
    def full(path, arrays):
        raise OSError("No space left on device")

    config = small(folders, "ce")
    expected = seen(config).train_inputs
    config.encoder.max_length = 63  # Another name; no sentence is so long.
    monkeypatch.setattr(keeping, "save_arrays", full)
    np.testing.assert_array_equal(seen(config).train_inputs, expected)
    assert "not kept, and a further run computes them anew: No space" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["ce", "otrw_net", "ib", "metasaug_ce"])
def test_the_heads_of_recipes_that_need_a_linear_one_have_no_tanh(recipe):
    model = make_model(sst.get_config().model, 2, head=RECIPES[recipe].head)
    head = model.init(jax.random.key(0), jnp.ones((1, 8)))["params"]["head"]
    z = 100 * jax.random.normal(jax.random.key(1), (5, 384))
    once, twice, none = (model.logits(head, scale * z) for scale in (1, 2, 0))
    linear = np.allclose(twice + none, 2 * once, rtol=1e-3)
    assert linear == (recipe in ("ib", "metasaug_ce"))
    assert linear or np.abs(once).max() <= 1


def test_features_stay_with_their_sentences():
    """Sentences of many lengths, more than a batch of them: as each encoded alone."""
    words = [w for w in (TINY / "vocab.txt").read_text().split() if w.isalpha() and w.isascii()]
    rng = np.random.default_rng(1)
    texts = np.array([" ".join(rng.choice(words, rng.integers(1, 20))) for _ in range(70)])
    config = sst.get_config().encoder
    config.folder = str(TINY)
    encode, params = encoding.read_encoder(config)
    together = encode(params, texts)
    assert together.shape == (70, 16)
    for row in (0, 13, 47, 69):
        alone = encode(params, texts[row : row + 1])
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-4, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_an_encoder_is_fine_tuned_on_the_extra_examples_of_its_seed(folders, monkeypatch):
    config = small(folders, "ce")
    frozen = seen(config)
    config.data.extra_per_class = 8
    config.encoder.fine_tuning.epochs = 4
    tuned, other = seen(config), seen(config, 1)
    assert np.abs(tuned.train_inputs - frozen.train_inputs).max() > 1e-2
    assert np.abs(tuned.train_inputs - other.train_inputs).max() > 1e-3
    # The minority changes what is trained on, not what the encoder is tuned on.
    monkeypatch.setattr(encoding, "fine_tuned", None)
    config.data.counts = (20, 2)
    np.testing.assert_array_equal(seen(config).train_inputs, tuned.train_inputs)
    with pytest.raises(TypeError):
        seen(config, 2)


def test_fine_tuning_learns_its_examples_and_leaves_what_it_was_given(folders):
    config = small(folders, "ce")
    config.encoder.fine_tuning.update({"epochs": 30, "batch_size": 4})
    source = Experiment(config).source.dataset
    encode, params = encoding.read_encoder(config.encoder)
    texts, labels = source.train_inputs[:16], source.train_labels[:16]
    before = jax.tree.map(np.asarray, params)
    arguments = encode.network, params, encode.pieces(texts), labels, 2, config.encoder.fine_tuning
    tuned = fine_tuned(*arguments, seed=0)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(one, other)

    def margin(params):
        """How far the classes' means lie apart, against how far examples lie from theirs."""
        z = encode(params, texts)
        means = np.stack([z[labels == c].mean(0) for c in (0, 1)])
        return (
            np.linalg.norm(means[0] - means[1]) / np.linalg.norm(z - means[labels], axis=1).mean()
        )

    assert margin(tuned) > 2 * margin(params)
    again = fine_tuned(*arguments, seed=0)
    for one, other in zip(jax.tree.leaves(tuned), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("damaged", [False, True])
def test_fine_tuning_goes_on_from_its_last_whole_epoch(
    damaged, folders, monkeypatch, assert_same_bits
):
    config = small(folders, "ce")
    config.data.extra_per_class = 7
    config.encoder.fine_tuning.epochs = 4
    name = f"interrupted_{damaged}"
    config.data.data_dir = str(folders / name)
    folder = folders / name / "encoded"
    save, saved = Checkpoints.save, []

    def killed(self, step, *args):
        save(self, step, *args)
        saved.append(step)
        if step == 2 and len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        seen(config)
    assert len(list(folder.glob("*.tuning"))) == 1 and not list(folder.glob("*.npz"))
    if damaged:
        next(folder.glob("*.tuning/2/state/manifest.ocdbt")).write_bytes(b"")
    gone_on = seen(config)
    assert saved == ([1, 2, 1, 2, 3, 4] if damaged else [1, 2, 3, 4])
    assert not list(folder.glob("*.tuning")) and len(list(folder.glob("*.npz"))) == 1

    config.data.data_dir = str(folders / "uninterrupted")
    assert_same_bits(gone_on.train_inputs, seen(config).train_inputs)


def test_one_process_computes_features_and_another_waits(folders, monkeypatch, capsys):
    config = small(folders, "ce")
    config.data.data_dir = str(folders / "waiting")
    source = Source(config)
    monkeypatch.setattr(encoding, "read_encoder", None)  # What waits computes nothing.
    monkeypatch.setattr(encoding, "_name", lambda *args: "features")
    path = folders / "waiting" / "encoded" / "features.npz"
    path.parent.mkdir(parents=True)
    parts = {name: np.full((3, 2), 7.0) for name in encoding.INPUTS}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with filelock.FileLock(path.with_suffix(".lock")):
            waiting = pool.submit(lambda: source.seen(source.split(0), 0))
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            np.savez(path, **parts)
        found = waiting.result(timeout=60)
    np.testing.assert_array_equal(found.train_inputs, parts["train_inputs"])
    assert f"another process computes {path}" in capsys.readouterr().out


def test_features_without_a_folder_to_write_to(folders, monkeypatch, capsys):
    config = small(folders, "ce")
    config.data.extra_per_class = 7
    config.encoder.fine_tuning.epochs = 1
    expected = seen(config)

    def refuse(*args, **kwargs):
        raise PermissionError("a disk that is only read")

    monkeypatch.setattr(encoding, "_name", lambda *args: "features")
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    monkeypatch.setattr(Checkpoints, "save", refuse)
    monkeypatch.setattr(keeping, "save_arrays", refuse)
    np.testing.assert_array_equal(seen(config).train_inputs, expected.train_inputs)
    assert "features are not kept" in capsys.readouterr().out


def test_what_an_encoder_cannot_be_fine_tuned_on(folders):
    config = small(folders, "ce")
    config.encoder.fine_tuning.update({"epochs": 1, "batch_size": 6})
    with pytest.raises(ValueError, match="batches of 6, and there are 4 extra examples"):
        seen(config)
    config.data.extra_per_class = 0
    with pytest.raises(ValueError, match=r"there are none: set data\.extra_per_class"):
        seen(config)


@pytest.mark.parametrize("recipe", ["otrw_paper", "otrw_net"])
def test_learned_weights_of_sentences(runs, recipe):
    weights = learned_weights(restore(runs(recipe)[1]))
    assert weights.shape == (24,) and np.isfinite(weights).all()
    if recipe == "otrw_net":
        assert weights.mean() == pytest.approx(1, rel=0.05)
    else:
        assert weights.std() > 0
    assert learned_weights(restore(runs("ce")[1])) is None


def test_the_sentences_that_weigh_most_are_drawn(runs):
    workdir = runs("otrw_net")[1]
    paths = {path.name for path in draw(workdir)}
    assert {"sentences.png", "class_weights.png"} <= paths
    assert (workdir / "sentences.png").stat().st_size > 10_000


def test_the_protocols_of_the_paper():
    assert sst.get_config("sst2,minority=20").data.counts == (1000, 20)
    assert sst.get_config("sst5,minority=60").data.counts == (500, 60, 500, 500, 500)
    with pytest.raises(ValueError, match="'sst3' is no data set here; begin with sst2 or sst5"):
        sst.get_config("sst3")
    assert json.dumps(sst.get_config().data.to_dict())
