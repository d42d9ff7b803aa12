"""A made set of 3,000 images in ImageNet-LT's form, some odd: streamed, then seen as features."""

import pytest

from experiments.configs import large_sets
from experiments.program.experiment import Experiment
from experiments.runs.predictions import predictions
from experiments.runs.restoring import restore
from experiments.runs.training import train
from otrw_jax.training.underway import Saver
from tests.data.builders.image_files import cut_off
from tests.data.builders.long_tailed_files import made_set
from tests.experiments.photos.shared import small
from tests.experiments.shared import Interrupted, history_of
from tests.models.weights import made
from tests.models.weights.test_resnet import decoupled, in_pth

pytestmark = pytest.mark.usefixtures("rank_promotion")

COUNTS = (234, *(round(200 * (5 / 200) ** (c / 39)) for c in range(1, 40)))
SHORT = {"epochs": 1, "batch_size": 64}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images of 40 classes, of which two are missing and two cut off, weights, a data folder."""
    root = tmp_path_factory.mktemp("large")
    rows = made_set(root / "images", COUNTS, validation=10, test=10)
    assert sum(map(len, rows.values())) == 3000
    for path, _ in rows["train"][:2]:
        (root / "images" / path).unlink()
    for path, _ in (rows["train"][2], rows["test"][0]):
        cut_off(root / "images" / path)
    (root / "weights.pth").write_bytes(in_pth(made.resnet(50), decoupled))
    return root


def shortened(config):
    for section in (config.stage1, config.stage2.otrw_paper):
        section.update(SHORT)
    return config


def test_three_thousand_images(place, tmp_path, final_state, assert_same_bits, monkeypatch):
    fields = {"data.max_excluded": 4, "save_every": 8}
    fields["model.weights"] = str(place / "weights.pth")
    experiment = Experiment(shortened(small(place, **fields)))
    split = experiment.source.split(0)
    assert (len(split.train), len(split.meta), len(split.held_out)) == (sum(COUNTS) - 3, 80, 320)
    whole = train(experiment, tmp_path / "whole", 0, 0)
    save, steps = Saver.__call__, []

    def watched(self, number, underway):
        save(self, number, underway)
        steps.append((number, underway.done))
        if steps[-1] == (1, 20) and steps.count((1, 20)) == 1:
            raise Interrupted

    monkeypatch.setattr(Saver, "__call__", watched)
    killed = tmp_path / "killed", 0, 0, tmp_path / "whole"  # The first stage is taken over.
    with pytest.raises(Interrupted):
        train(experiment, *killed)
    assert train(experiment, *killed) == whole
    # Of the second stage's epoch 16 steps were saved, which are not done again.
    assert steps[0] == (1, 1) and steps[steps.index((1, 20)) + 1] == (1, 17)
    assert_same_bits(*(final_state(experiment, tmp_path / name) for name in ("whole", "killed")))
    assert history_of(tmp_path / "killed") == history_of(tmp_path / "whole")

    features = large_sets.get_config(f"recipe=otrw_paper,folder={place / 'images'}")
    for name in ("data_dir", "meta_per_class", "max_excluded"):
        features.data[name] = experiment.config.data[name]
    features.encoder.update({"weights": fields["model.weights"], "resize": 36, "side": 32})
    seen = Experiment(shortened(features))
    assert seen.source.split(0).train.tolist() == split.train.tolist()
    train(seen, tmp_path / "features", 0, 0)
    for name in ("whole", "features"):
        restored = restore(tmp_path / name)
        files = [str(path) for path in restored.source.paths["test"][:5]]
        assert [row.file for row in predictions(restored, files).found] == files
