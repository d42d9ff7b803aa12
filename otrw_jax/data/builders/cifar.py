"""The TFDS datasets `cifar10` and `cifar100`, downloaded and prepared without TensorFlow.

The stock builders open the archive and encode its images through TensorFlow. These subclasses
read it with Python's `tarfile` and hand over finished PNG bytes. Name, version, features and
content are the stock ones, so either builder reads what the other prepared.

A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
"""

import io
import tarfile
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from otrw_jax.data.builders.manual import SourceError

PIXELS = 3 * 32 * 32


class _WithoutTensorFlow:
    """The parts of a stock CIFAR builder that need TensorFlow, done without it."""

    _cifar_info: Any  # Of the stock builder: where its archive is, and the files in it.
    info: Any

    @property
    def archive_url(self) -> str:
        """Where the archive comes from."""
        return self._cifar_info.url

    def _split_generators(self, dl_manager):
        cifar = self._cifar_info
        archive = dl_manager.download(cifar.url)
        members = [*cifar.label_files, *cifar.train_files, *cifar.test_files]
        content = _read_archive(archive, [cifar.prefix + name for name in members])
        for key, name in zip(cifar.label_keys, cifar.label_files, strict=True):
            lines = content[cifar.prefix + name].decode().split("\n")
            self.info.features[key].names = [line for line in lines if line]
        return {
            split: self._generate_examples(
                f"{split}_", b"".join(content[cifar.prefix + name] for name in files)
            )
            for split, files in (("train", cifar.train_files), ("test", cifar.test_files))
        }

    def _generate_examples(self, split_prefix, records):
        label_keys = self._cifar_info.label_keys
        table = np.frombuffer(records, np.uint8).reshape(-1, len(label_keys) + PIXELS)
        for index, row in enumerate(table):
            labels = row[: len(label_keys)].tolist()
            image = row[len(label_keys) :].reshape(3, 32, 32).transpose(1, 2, 0)
            yield (
                index,
                {
                    **dict(zip(label_keys, labels, strict=True)),
                    "id": f"{split_prefix}{index:05d}",
                    "image": _png(image),
                },
            )


class Cifar10(  # type: ignore[call-arg]  # TFDS reads the argument, and has no types.
    _WithoutTensorFlow, tfds.image_classification.Cifar10, skip_registration=True
):
    """The stock `cifar10`: 50,000 + 10,000 images [32, 32, 3], 10 classes."""

    name = "cifar10"


class Cifar100(  # type: ignore[call-arg]  # As above.
    _WithoutTensorFlow, tfds.image_classification.Cifar100, skip_registration=True
):
    """The stock `cifar100`: 50,000 + 10,000 images [32, 32, 3], 100 fine and 20 coarse classes."""

    name = "cifar100"


def _read_archive(path, names: list[str]) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {name: _read(archive, name) for name in names}


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise SourceError(f"{name} in the archive is no file; download the archive anew.")
    return file.read()


def _png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()
