"""Small image datasets as arrays in memory, read from TFDS without TensorFlow.

`python -m otrw_jax.data.sources NAME [--data_dir DIR]` prepares a dataset and prints its sizes.
"""

import argparse
import contextlib
import difflib
import hashlib
import io
import os
import pathlib
import sys
import textwrap
import zipfile
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32, UInt8
from PIL import Image

from otrw_jax.data.cifar import Cifar10, Cifar100
from otrw_jax.data.digits import Digits

BUILDERS = {"digits": Digits, "cifar10": Cifar10, "cifar100": Cifar100}
CACHE_NAME = "decoded.npz"
ARRAYS = ("train_inputs", "train_labels", "test_inputs", "test_labels")


class DatasetNotFound(FileNotFoundError):
    """The dataset is not in the data folder and cannot be made there."""


class Dataset(NamedTuple):
    """A labelled dataset in host memory.

    Attributes:
        name: as given to `load_dataset`.
        train_inputs: pixels of the training part.
        train_labels: their classes, in 0..K-1.
        test_inputs: pixels of the test part.
        test_labels: their classes.
        class_names: one for each of the K classes.
    """

    name: str
    train_inputs: UInt8[np.ndarray, "n h w c"]
    train_labels: Int32[np.ndarray, "n"]
    test_inputs: UInt8[np.ndarray, "m h w c"]
    test_labels: Int32[np.ndarray, "m"]
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)


def load_dataset(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Loads a dataset, and prepares it first where that is still to be done.

    Each part is ordered by content: by the SHA-256 of an example's pixels, then by its label.
    TFDS stores records in the order of a hash of their keys, which differ between preparations;
    in the order of their content, an index means the same example everywhere.

    "digits" (8×8×1, values 0 to 16, 10 classes) is made from scikit-learn. "cifar10" and
    "cifar100" (32×32×3, values 0 to 255) are downloaded, 170 MB each; their decoded arrays are
    kept beside the records, in 185 MB, so that later loads take less than a second; a folder
    that cannot be written is read without.

    Args:
        name: "digits", "cifar10" or "cifar100".
        data_dir: TFDS's data folder; by default `TFDS_DATA_DIR`, else ~/tensorflow_datasets.

    Raises:
        ValueError: the name is unknown.
        DatasetNotFound: the dataset is not there, incomplete or in a format that needs
            TensorFlow, and cannot be downloaded.
    """
    if name not in BUILDERS:
        near = difflib.get_close_matches(name, BUILDERS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown dataset {name!r}; did you mean {near!r}? There are {', '.join(BUILDERS)}"
        )
    root = _data_root(data_dir)
    folder = _folder(name, root)
    if not folder.exists():
        _prepare(name, root)
    try:
        builder = BUILDERS[name](data_dir=root)
        arrays = _arrays(builder, folder)
    except Exception as error:
        raise DatasetNotFound(
            f"{folder} holds no complete dataset in the array_record format; delete it to have it "
            f"made again, or choose another data_dir ({_brief(error)})"
        ) from error
    label = builder.info.features["label"]
    return Dataset(name, *arrays, tuple(label.int2str(c) for c in range(label.num_classes)))


def main(argv: list[str] | None = None) -> None:
    """Prepares one dataset and prints its name, sizes and folder."""
    parser = argparse.ArgumentParser(
        prog="python -m otrw_jax.data.sources", description=main.__doc__
    )
    parser.add_argument("name", choices=BUILDERS)
    parser.add_argument("--data_dir", help="default: TFDS_DATA_DIR, else ~/tensorflow_datasets")
    args = parser.parse_args(argv)
    folder = _folder(args.name, _data_root(args.data_dir))
    if not folder.exists():
        print(f"preparing {args.name} in {folder}", file=sys.stderr)
    try:
        dataset = load_dataset(args.name, args.data_dir)
    except DatasetNotFound as error:
        sys.exit(str(error))
    print(
        f"{dataset.name}: {len(dataset.train_labels)} training and {len(dataset.test_labels)} "
        f"test images, {'×'.join(map(str, dataset.train_inputs.shape[1:]))}, "
        f"{dataset.num_classes} classes, in {folder}"
    )


def _data_root(data_dir: str | os.PathLike | None) -> pathlib.Path:
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(root).expanduser()


def _folder(name: str, root: pathlib.Path) -> pathlib.Path:
    return root / name / str(BUILDERS[name].VERSION)


def _prepare(name: str, root: pathlib.Path) -> None:
    """Writes the dataset; a concurrent preparation that finishes first is as good."""
    builder = BUILDERS[name](data_dir=root)
    try:
        _check_reachable(builder, root)
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            builder.download_and_prepare(file_format="array_record")
    except Exception as error:
        if _folder(name, root).exists():
            return
        if not hasattr(builder, "archive_url"):
            raise
        raise DatasetNotFound(_how_to_get(builder, root, error)) from error


def _check_reachable(builder: tfds.core.DatasetBuilder, root: pathlib.Path) -> None:
    """Fails at once where TFDS would try again for minutes."""
    url = getattr(builder, "archive_url", None)
    if url is None:
        return
    stem = url.rsplit("/", 1)[1].removesuffix(".tar.gz")
    if any(".tmp." not in path.parent.name for path in root.glob(f"downloads/**/*{stem}*.gz")):
        return  # The archive lies in the download folder.
    import requests  # TFDS's own client: the same proxies, the same certificates.

    requests.head(url, timeout=10).close()


def _how_to_get(builder, root: pathlib.Path, error: Exception) -> str:
    name, url = builder.name, builder.archive_url
    return (
        f"{name} is not in {_folder(name, root)}, and the attempt to download and prepare it "
        f"failed ({_brief(error)}). Either run `python -m otrw_jax.data.sources {name} --data_dir "
        f"DIR` on a machine with internet access and copy DIR/{name} to {root / name}; or put "
        f"{url.rsplit('/', 1)[1]} from {url} into {root / 'downloads' / 'manual'}; or, if the "
        "dataset lies elsewhere, name its TFDS folder by data_dir or TFDS_DATA_DIR"
    )


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 160, placeholder='…')}"


def _arrays(builder: tfds.core.DatasetBuilder, folder: pathlib.Path) -> tuple[np.ndarray, ...]:
    """The four arrays of a dataset, from the cache where decoding takes long."""
    if not isinstance(builder.info.features["image"], tfds.features.Image):
        return _decode(builder)
    cache = folder / CACHE_NAME
    try:
        with np.load(cache) as stored:
            return tuple(stored[key] for key in ARRAYS)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        # Absent, or not what it should be: then the records decide.
        arrays = _decode(builder)
    _try_to_save(cache, dict(zip(ARRAYS, arrays, strict=True)))
    return arrays


def _decode(builder: tfds.core.DatasetBuilder) -> tuple[np.ndarray, ...]:
    return (*_decode_split(builder, "train"), *_decode_split(builder, "test"))


def _decode_split(builder, split: str) -> tuple[np.ndarray, np.ndarray]:
    is_png = isinstance(builder.info.features["image"], tfds.features.Image)
    decoders = {"image": tfds.decode.SkipDecoding()} if is_png else None
    source = builder.as_data_source(split, decoders=decoders)
    examples = source.__getitems__(range(len(source)))
    images = [_read_png(e["image"]) if is_png else e["image"] for e in examples]
    keys = [
        (hashlib.sha256(image.tobytes()).digest(), int(e["label"]))
        for image, e in zip(images, examples, strict=True)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return np.stack([images[i] for i in order]), np.array([keys[i][1] for i in order], np.int32)


def _read_png(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def _try_to_save(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Saves in one step, so that no reader sees half a file; a read-only folder is no error."""
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial.npz")
    try:
        np.savez(partial, **arrays)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()


if __name__ == "__main__":
    main()
