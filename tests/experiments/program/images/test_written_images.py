import numpy as np
import pytest
from PIL import Image

from experiments.program.images import written_images
from experiments.program.images.written_images import at_hand, write_images
from otrw_jax.data.builders.image_folder import load_image_folder
from otrw_jax.data.sources import load_dataset


def test_the_digits_become_a_folder_of_jpegs(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    monkeypatch.setattr(written_images, "TRAIN", 3)
    monkeypatch.setattr(written_images, "TEST", 2)
    write_images("digits", tmp_path / "images")
    found = load_image_folder(tmp_path / "images", tmp_path / "data")
    assert found.class_names == tuple("0123456789")
    assert np.bincount(found.labels["train"]).tolist() == [3] * 10
    assert np.bincount(found.labels["test"]).tolist() == [2] * 10
    with Image.open(found.paths["train"][0]) as image:
        assert image.format == "JPEG" and image.size == (64, 64) and image.mode == "L"
        read = np.asarray(image.resize((8, 8), Image.Resampling.BOX)).astype(float) / 255 * 16
    digits = load_dataset("digits", data_dir)
    original = digits.train_inputs[digits.train_labels == 0][0, ..., 0]
    assert np.abs(read - original).mean() < 1.5
    # Written again, files stay as they are.
    found.paths["train"][0].write_bytes(b"mine")
    write_images("digits", tmp_path / "images")
    assert found.paths["train"][0].read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_cifar10_is_taken_where_it_is_prepared(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / name).mkdir()
    assert at_hand() == name
