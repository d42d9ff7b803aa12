"""Small datasets as arrays in memory, read from TFDS without TensorFlow: images, texts, clouds.

`python -m otrw_jax.data.sources NAME [--data_dir DIR] [--manual_dir DIR]` prepares a dataset and
prints its sizes.
"""

import argparse
import contextlib
import hashlib
import io
import os
import pathlib
import sys
import zipfile
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Shaped, UInt8

from otrw_jax.checks import nearest
from otrw_jax.extras import brought_by
from otrw_jax.files import replacing

with brought_by("data", __name__):
    import tensorflow_datasets as tfds
    from PIL import Image

    from otrw_jax.data.builders.cifar import Cifar10, Cifar100
    from otrw_jax.data.builders.digits import Digits
    from otrw_jax.data.builders.manual import SourceError
    from otrw_jax.data.builders.modelnet10 import ModelNet10
    from otrw_jax.data.builders.preparation import DatasetNotFound, brief, prepare
    from otrw_jax.data.builders.sst import Sst

BUILDERS: dict[str, Any] = {
    "digits": Digits,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "sst2": Sst,
    "sst5": Sst,
    "modelnet10": ModelNet10,
}
CACHE_NAME = "decoded.npz"
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
ARRAYS = ("train_inputs", "train_labels", "test_inputs", "test_labels")

# Pixels, or clouds of points, or a vector of sentences, whose dtype is NumPy's str.
Inputs = UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n p 3"] | Shaped[np.ndarray, "n"]


class Dataset(NamedTuple):
    """A labelled dataset in host memory.

    Attributes:
        name: as given to `load_dataset`.
        train_inputs: pixels, clouds or sentences of the training part.
        train_labels: their classes, in 0..K-1.
        test_inputs: those of the test part.
        test_labels: their classes.
        class_names: one for each of the K classes.
    """

    name: str
    train_inputs: Inputs
    train_labels: Int32[np.ndarray, "n"]
    test_inputs: Inputs
    test_labels: Int32[np.ndarray, "m"]
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)


def load_dataset(
    name: str,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
) -> Dataset:
    """Loads a dataset, and prepares it first where that is still to be done.

    Each part is ordered by content: by the SHA-256 of an example's pixels or text, then by its
    label. TFDS stores records in the order of a hash of their keys, which differ between
    preparations; in the order of their content, an index means the same example everywhere.
    Clouds are ordered by the SHA-256 of their object's name, so that an index means the same
    object whichever form they are made of.

    "digits" (8×8×1, values 0 to 16, 10 classes) is made from scikit-learn. "cifar10" and
    "cifar100" (32×32×3, values 0 to 255) are downloaded, 170 MB each; their decoded arrays are
    kept beside the records, in 185 MB, so that later loads take less than a second; a folder
    that cannot be written is read without. "sst2" and "sst5" (sentences, 2 and 5 classes) and
    "modelnet10" (1024×3, 10 classes) are made of files in `manual_dir`, as `Sst` and `ModelNet10`
    say, or downloaded, 1 MB and 470 MB.

    Args:
        name: one of `BUILDERS`.
        data_dir: TFDS's data folder; by default `TFDS_DATA_DIR`, else ~/tensorflow_datasets.
        manual_dir: where files lie that a dataset is to be made of; by default TFDS's
            downloads/manual in `data_dir`. A dataset that is prepared already does not need it.

    Raises:
        ValueError: the name is unknown.
        DatasetNotFound: the dataset is not there, incomplete or in a format that needs
            TensorFlow, and cannot be downloaded.
        SourceError: a file that the dataset is to be made of is malformed, or needs a package
            that is not installed; a ValueError.
    """
    if name not in BUILDERS:
        near = nearest(name, BUILDERS)
        raise ValueError(
            f"unknown dataset {name!r}; did you mean {near!r}? There are {', '.join(BUILDERS)}."
        )
    root = data_root(data_dir)
    folder = _folder(name, root)
    if not folder.exists():
        manual = pathlib.Path(manual_dir or root / "downloads" / "manual").expanduser()
        prepare(_builder(name, root), folder, root, manual)
    try:
        builder = _builder(name, root)
        arrays = _arrays(builder, folder)
    except Exception as error:
        raise DatasetNotFound(
            f"{folder} holds no complete dataset in the array_record format; delete it to have it "
            f"made again, or choose another data_dir ({brief(error)})."
        ) from error
    label = builder.info.features["label"]
    names = tuple(label.int2str(c) for c in range(label.num_classes))
    return Dataset(name, *arrays, class_names=names)


def main(argv: list[str] | None = None) -> None:
    """Prepares one dataset and prints its name, sizes and folder."""
    parser = argparse.ArgumentParser(
        prog="python -m otrw_jax.data.sources", description=main.__doc__
    )
    parser.add_argument("name", choices=BUILDERS)
    parser.add_argument("--data_dir", help="default: TFDS_DATA_DIR, else ~/tensorflow_datasets")
    parser.add_argument(
        "--manual_dir", help="with files to make it of; default: downloads/manual in data_dir"
    )
    args = parser.parse_args(argv)
    folder = _folder(args.name, data_root(args.data_dir))
    if not folder.exists():
        print(f"preparing {args.name} in {folder}", file=sys.stderr)
    try:
        dataset = load_dataset(args.name, args.data_dir, args.manual_dir)
    except (DatasetNotFound, SourceError) as error:
        sys.exit(str(error))
    shape = dataset.train_inputs.shape[1:]
    kind = {0: "sentences", 2: "clouds", 3: "images"}[len(shape)]
    print(
        f"{dataset.name}: {len(dataset.train_labels)} training and {len(dataset.test_labels)} "
        f"test {kind}, {'×'.join(map(str, shape)) + ', ' if shape else ''}"
        f"{dataset.num_classes} classes, in {folder}"
    )


def data_root(data_dir: str | os.PathLike | None) -> pathlib.Path:
    """TFDS's data folder: that given, else `TFDS_DATA_DIR`, else ~/tensorflow_datasets."""
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(root).expanduser()


def _folder(name: str, root: pathlib.Path) -> pathlib.Path:
    builder = BUILDERS[name]
    return root.joinpath(builder.name, *_config(name), str(builder.VERSION))


def _builder(name: str, root: pathlib.Path) -> tfds.core.DatasetBuilder:
    return BUILDERS[name](data_dir=root, config=next(iter(_config(name)), None))


def _config(name: str) -> tuple[str, ...]:
    """The name of the builder's config, where it has configs."""
    return (name,) if name in BUILDERS[name].builder_configs else ()


def _arrays(builder: tfds.core.DatasetBuilder, folder: pathlib.Path) -> Arrays:
    """The four arrays of a dataset, from the cache where decoding takes long."""
    if not _is_png(builder):
        return _decode(builder)
    cache = folder / CACHE_NAME
    try:
        with np.load(cache) as stored:
            a, b, c, d = (stored[key] for key in ARRAYS)
            return a, b, c, d
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        # Absent, or not what it should be: then the records decide.
        arrays = _decode(builder)
    with contextlib.suppress(OSError):  # A folder that cannot be written is read without.
        save_arrays(cache, dict(zip(ARRAYS, arrays, strict=True)))
    return arrays


def _decode(builder: tfds.core.DatasetBuilder) -> Arrays:
    return (*_decode_split(builder, "train"), *_decode_split(builder, "test"))


def _decode_split(builder, split: str) -> tuple[np.ndarray, np.ndarray]:
    decoders = {"image": tfds.decode.SkipDecoding()} if _is_png(builder) else None
    source = builder.as_data_source(split, decoders=decoders)
    examples = source.__getitems__(range(len(source)))
    inputs, contents = _read_inputs(builder, examples)
    keys = [
        (hashlib.sha256(content).digest(), int(e["label"]))
        for content, e in zip(contents, examples, strict=True)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return np.stack([inputs[i] for i in order]), np.array([keys[i][1] for i in order], np.int32)


def _read_inputs(builder, examples: list[dict]) -> tuple[list, list[bytes]]:
    """The inputs of examples, and the bytes that decide their order."""
    kind = builder.info.supervised_keys[0]
    if kind == "text":
        return [e["text"].decode() for e in examples], [e["text"] for e in examples]
    if kind == "points":
        return [e["points"] for e in examples], [e["id"] for e in examples]
    read = _read_png if _is_png(builder) else np.asarray
    images = [read(e["image"]) for e in examples]
    return images, [image.tobytes() for image in images]


def _is_png(builder: tfds.core.DatasetBuilder) -> bool:
    features = builder.info.features
    return "image" in features and isinstance(features["image"], tfds.features.Image)


def _read_png(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def save_arrays(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    """Saves arrays in an npz file, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there is intact.
    """
    with replacing(path, f".{os.getpid()}.tmp") as draft, draft.open("wb") as file:
        np.savez(file, **arrays)


if __name__ == "__main__":
    main()
