"""What is carried of a data set is what its subsets need, and nothing else is run on it."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import packing
from experiments.program.data import PACKED, Source
from experiments.studies import parcels
from otrw_jax.data.sources import ARRAYS, CACHE_NAME, Dataset


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A data folder of 40 training and 10 test images, and splits of six of the first."""
    rng = np.random.default_rng(0)
    arrays = [
        *(rng.integers(0, 256, (40, 32, 32, 3), np.uint8), np.arange(40, dtype=np.int32) % 10),
        *(rng.integers(0, 256, (10, 32, 32, 3), np.uint8), np.arange(10, dtype=np.int32)),
    ]
    dataset = Dataset("cifar10", *arrays, tuple("abcdefghij"))

    def split(seed):
        ids = np.arange(6) + 3 * seed
        parts = {"train": ids[:3], "meta": ids[3:5], "held_out": ids[5:]}
        return SimpleNamespace(**parts, fingerprint=f"subset {seed}")

    home = tmp_path / "tfds" / "cifar10" / "3.0.2"
    home.mkdir(parents=True)
    (home / "dataset_info.json").write_text("{}")
    (home / "label.labels.txt").write_text("a\nb\n")
    monkeypatch.setattr(
        parcels, "Source", lambda config: SimpleNamespace(dataset=dataset, split=split)
    )
    monkeypatch.setattr(parcels, "IMAGES", 5)
    return dataset


def call(*arguments):
    with flagsaver.flagsaver():
        packing.main(flags.FLAGS(["packing", *map(str, arguments)]))


def test_what_is_packed_is_what_is_unpacked(images, tmp_path, capsys):
    data = f"--data_dir={tmp_path / 'tfds'}"
    call(f"--pack={tmp_path / 'packed'}", "--dataset=cifar10", "--seeds=0,2", data)
    # Twelve images of five a file, after the test part.
    assert len(list((tmp_path / "packed").iterdir())) == 4
    new = tmp_path / "new"
    call(f"--packed={tmp_path / 'packed'}", f"--data_dir={new}")
    with np.load(new / "cifar10" / "3.0.2" / CACHE_NAME) as stored:
        found = {key: stored[key] for key in ARRAYS}
    for key in ("train_labels", "test_labels", "test_inputs"):
        np.testing.assert_array_equal(found[key], getattr(images, key))
    kept = np.zeros(40, bool)
    kept[:12] = True
    np.testing.assert_array_equal(found["train_inputs"][kept], images.train_inputs[kept])
    assert not found["train_inputs"][~kept].any()
    wanted = {f"subset {seed}" for seed in (0, 2)}
    assert set(json.loads((new / "cifar10" / PACKED).read_text())) == wanted
    assert (new / "cifar10" / "3.0.2" / "label.labels.txt").read_text() == "a\nb\n"
    with pytest.raises(ValueError, match="is there already; choose another --data_dir"):
        call(f"--packed={tmp_path / 'packed'}", f"--data_dir={new}")


def test_a_subset_that_is_not_packed_is_refused(small_config, data_dir, tmp_path):
    shutil.copytree(data_dir / "digits", tmp_path / "digits")
    config = small_config("ce")
    config.data.data_dir = str(tmp_path)
    source = Source(config)
    fingerprint = source.split(0).fingerprint
    (tmp_path / "digits" / PACKED).write_text(json.dumps([fingerprint]))
    assert source.split(0).fingerprint == fingerprint
    with pytest.raises(ValueError, match=r"\(subset_seed=1\) are not in .*digits, where those of"):
        source.split(1)


def test_what_cannot_be_packed_is_told(tmp_path):
    with pytest.raises(ValueError, match="give one of --pack, to pack, and --packed, to unpack"):
        call()
    with pytest.raises(ValueError, match="--dataset=digits: choose cifar10 or cifar100"):
        call(f"--pack={tmp_path}", "--dataset=digits")
    with pytest.raises(FileNotFoundError, match="holds no packed data set"):
        call(f"--packed={tmp_path}", f"--data_dir={tmp_path / 'new'}")
