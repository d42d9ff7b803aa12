import io
import os
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from otrw_jax.data import sources
from otrw_jax.data.sources import DatasetNotFound, load_dataset

DATA_DIR = os.path.expanduser(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
# name: archive, its folder, label files with their lines, training files, test file, label bytes
CIFAR = {
    "cifar10": (
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
        {"batches.meta.txt": 10},
        [f"data_batch_{i}.bin" for i in range(1, 6)],
        "test_batch.bin",
        1,
    ),
    "cifar100": (
        "cifar-100-binary.tar.gz",
        "cifar-100-binary",
        {"coarse_label_names.txt": 20, "fine_label_names.txt": 100},
        ["train.bin"],
        "test.bin",
        2,
    ),
}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def _assert_same(one, other):
    assert one.name == other.name
    assert one.class_names == other.class_names
    for field in sources.ARRAYS:
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_digits_are_all_there(data_dir, capfd):
    digits = load_dataset("digits", data_dir)
    assert digits.train_inputs.shape == (1397, 8, 8, 1)
    assert digits.test_inputs.shape == (400, 8, 8, 1)
    assert digits.train_inputs.dtype == np.uint8
    assert digits.train_labels.dtype == np.int32
    assert (digits.train_inputs.min(), digits.train_inputs.max()) == (0, 16)
    np.testing.assert_array_equal(np.bincount(digits.test_labels), [40] * 10)
    assert digits.class_names == tuple("0123456789")
    assert digits.num_classes == 10
    _assert_same(digits, load_dataset("digits", str(data_dir)))
    assert capfd.readouterr() == ("", "")


def test_digits_are_those_of_scikit_learn(data_dir):
    from sklearn.datasets import load_digits

    raw = load_digits()
    test = np.concatenate([np.flatnonzero(raw.target == c)[-40:] for c in range(10)])
    digits = load_dataset("digits", data_dir)

    def content(images, labels):
        images = np.reshape(images, (len(labels), -1)).astype(int)
        return sorted(map(tuple, np.column_stack([images, labels])))

    assert content(digits.test_inputs, digits.test_labels) == content(
        raw.images[test], raw.target[test]
    )
    assert content(digits.train_inputs, digits.train_labels) == content(
        np.delete(raw.images, test, axis=0), np.delete(raw.target, test)
    )


def test_a_preparation_that_another_one_overtakes_is_no_error(tmp_path, data_dir, monkeypatch):
    plain = sources.Digits._split_generators

    def overtaken(self, dl_manager):
        monkeypatch.setattr(sources.Digits, "_split_generators", plain)
        load_dataset("digits", tmp_path)
        return plain(self, dl_manager)

    monkeypatch.setattr(sources.Digits, "_split_generators", overtaken)
    _assert_same(load_dataset("digits", tmp_path), load_dataset("digits", data_dir))
    assert os.listdir(tmp_path / "digits") == ["1.0.0"]


def test_main_prints_the_sizes_and_the_folder(data_dir, capsys):
    load_dataset("digits", data_dir)
    sources.main(["digits", "--data_dir", str(data_dir)])
    assert capsys.readouterr().out == (
        "digits: 1397 training and 400 test images, 8×8×1, 10 classes, "
        f"in {data_dir / 'digits' / '1.0.0'}\n"
    )


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="unknown dataset 'cifar-10'; did you mean 'cifar10'"):
        load_dataset("cifar-10")


def _write_fake_cifar(name, data_dir, seed=0):
    """Puts a small archive in the binary layout of CIFAR where TFDS looks for it.

    Returns the archive's path and its content: images and labels of both parts.
    """
    archive, folder, label_files, train_files, test_file, label_bytes = CIFAR[name]
    rng = np.random.default_rng(seed)
    path = data_dir / "downloads" / "manual" / archive
    path.parent.mkdir(parents=True)
    files = {
        file: "\n".join(f"{file[:1]}{i}" for i in range(lines)).encode() + b"\n\n"
        for file, lines in label_files.items()
    }
    content = {"train": ([], []), "test": ([], [])}
    for file in [*train_files, test_file]:
        images = rng.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
        labels = rng.integers(0, 10, (4, label_bytes), dtype=np.uint8)
        files[file] = np.hstack([labels, images.reshape(4, -1)]).tobytes()
        part = content["test" if file == test_file else "train"]
        part[0].extend(images.transpose(0, 2, 3, 1))
        part[1].extend(labels[:, -1].tolist())
    with tarfile.open(path, "w:gz") as tar:
        for file, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path, content


def _forbid_download(monkeypatch):
    def refuse(self, url):
        raise ConnectionError(f"no way to {url}")

    monkeypatch.setattr(tfds.download.DownloadManager, "download", refuse)


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_is_prepared_from_its_archive(name, tmp_path, monkeypatch, capfd):
    archive, content = _write_fake_cifar(name, tmp_path)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", lambda self, url: archive)
    cifar = load_dataset(name, tmp_path)

    assert cifar.num_classes == (10 if name == "cifar10" else 100)
    prefix = "b" if name == "cifar10" else "f"
    assert cifar.class_names == tuple(f"{prefix}{i}" for i in range(cifar.num_classes))
    for part, inputs, labels in (
        ("train", cifar.train_inputs, cifar.train_labels),
        ("test", cifar.test_inputs, cifar.test_labels),
    ):
        stored = {image.tobytes(): int(c) for image, c in zip(inputs, labels, strict=True)}
        images, classes = content[part]
        assert stored == {i.tobytes(): c for i, c in zip(images, classes, strict=True)}
        assert inputs.shape == (len(images), 32, 32, 3)
    assert capfd.readouterr() == ("", "")

    _forbid_download(monkeypatch)
    folder = tmp_path / name / "3.0.2"
    _assert_same(cifar, load_dataset(name, tmp_path))  # From the cache.
    (folder / sources.CACHE_NAME).write_bytes(b"damaged")
    _assert_same(cifar, load_dataset(name, tmp_path))  # From the records.
    assert not list(folder.glob("*partial*"))


def test_order_does_not_depend_on_the_records(tmp_path, monkeypatch):
    loaded = []
    for number, order in enumerate([slice(None), slice(None, None, -1)]):
        data_dir = tmp_path / str(number)
        archive, _ = _write_fake_cifar("cifar10", data_dir)
        monkeypatch.setattr(tfds.download.DownloadManager, "download", lambda *_, a=archive: a)
        stock = sources.Cifar10._generate_examples

        def reordered(self, prefix, records, order=order, stock=stock):
            examples = [example for _, example in stock(self, prefix, records)]
            yield from enumerate(examples[order])

        with monkeypatch.context() as patch:
            patch.setattr(sources.Cifar10, "_generate_examples", reordered)
            loaded.append(load_dataset("cifar10", data_dir))
    _assert_same(*loaded)


def test_the_stock_builder_reads_what_ours_prepares(tmp_path, monkeypatch):
    archive, _ = _write_fake_cifar("cifar100", tmp_path)
    monkeypatch.setattr(tfds.download.DownloadManager, "download", lambda self, url: archive)
    load_dataset("cifar100", tmp_path)
    stock = tfds.builder("cifar100", data_dir=tmp_path)
    source = stock.as_data_source("test", decoders={"image": tfds.decode.SkipDecoding()})
    assert len(source) == 4
    assert {e["id"] for e in source} == {f"test_{i:05d}".encode() for i in range(4)}


def test_missing_cifar_says_how_to_get_it(tmp_path, monkeypatch):
    archive, _ = _write_fake_cifar("cifar10", tmp_path)
    _forbid_download(monkeypatch)
    for _ in range(2):
        with pytest.raises(DatasetNotFound) as caught:
            load_dataset("cifar10", tmp_path)
        message = str(caught.value)
        assert str(tmp_path / "cifar10" / "3.0.2") in message
        assert "python -m otrw_jax.data.sources cifar10 --data_dir DIR" in message
        assert "put cifar-10-binary.tar.gz from https://" in message
        assert str(archive.parent) in message
        assert "TFDS_DATA_DIR" in message
        assert "ConnectionError: no way to https://" in message
    assert not list(tmp_path.glob("cifar10/*"))


def test_unreachable_server_fails_before_tfds_tries(tmp_path, monkeypatch):
    import requests

    def unreachable(url, timeout):
        raise requests.ConnectionError("name resolution failed")

    monkeypatch.setattr(requests, "head", unreachable)
    with pytest.raises(SystemExit, match=r"cifar100 is not in .*name resolution failed"):
        sources.main(["cifar100", "--data_dir", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["dataset_info.json", "digits-test*", "*"])
def test_half_a_dataset_is_named_as_such(missing, data_dir, tmp_path):
    load_dataset("digits", data_dir)
    folder = tmp_path / "digits" / "1.0.0"
    shutil.copytree(data_dir / "digits" / "1.0.0", folder)
    for path in folder.glob(missing):
        path.unlink()
    with pytest.raises(DatasetNotFound, match=f"{folder} holds no complete dataset in the array"):
        load_dataset("digits", tmp_path)


def test_the_data_folder_may_come_from_the_environment(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    _assert_same(load_dataset("digits"), load_dataset("digits", data_dir))
    assert (tmp_path / "digits" / "1.0.0").is_dir()


@pytest.mark.parametrize(("name", "per_class"), [("cifar10", 5000), ("cifar100", 500)])
def test_real_cifar(name, per_class):
    if not os.path.exists(os.path.join(DATA_DIR, name, "3.0.2", sources.CACHE_NAME)):
        pytest.skip(f"{name} has not been prepared and loaded in {DATA_DIR}")
    cifar = load_dataset(name)
    np.testing.assert_array_equal(
        np.bincount(cifar.train_labels), [per_class] * (50_000 // per_class)
    )
    np.testing.assert_array_equal(
        np.bincount(cifar.test_labels), [per_class // 5] * (50_000 // per_class)
    )
    assert cifar.train_inputs.shape == (50_000, 32, 32, 3)
    np.testing.assert_allclose(
        cifar.train_inputs[::10].mean((0, 1, 2)),
        [125.3, 123.0, 113.9] if name == "cifar10" else [129.3, 124.1, 112.4],
        atol=1.0,
    )
