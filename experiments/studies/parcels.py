"""Files that carry what the agenda needs of long-tailed CIFAR, and the data folder made of them."""

import io
import json
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from experiments.program.data import PACKED, Source
from experiments.studies.agenda import FIRST
from experiments.studies.rows import row_config
from experiments.studies.tables import TABLES
from otrw_jax.data.sources import ARRAYS, CACHE_NAME, data_root, save_arrays
from otrw_jax.files import write_json, write_text

# Images a file; no more bytes than as they are, 3,072 each.
IMAGES = 19_000
SIDE = 32


def pack(
    name: str, data_dir: str, folder: pathlib.Path, subset_seeds: list[int]
) -> Iterator[pathlib.Path]:
    """Writes the files of a data set, and gives their paths.

    Args:
        name: "cifar10" or "cifar100".
        data_dir: its TFDS folder.
        folder: of the files.
        subset_seeds: of the subsets that are packed, where the agenda has them.
    """
    wanted: dict[float, set] = {}
    for block in FIRST:
        if block.dataset == name:
            wanted.setdefault(block.factor, set()).update(block.seeds)
    ids, fingerprints = set(), []
    for factor, seeds in sorted(wanted.items()):
        config = row_config(TABLES["table1"].rows["ce"], name, factor, {"data.data_dir": data_dir})
        source = Source(config)
        for seed in sorted(seeds & set(subset_seeds)):
            split = source.split(seed)
            fingerprints.append(split.fingerprint)
            for part in (split.train, split.meta, split.held_out):
                ids |= set(part.tolist())
    dataset, ids = source.dataset, np.array(sorted(ids))
    root = data_root(data_dir)
    home = next((root / name).glob("*/dataset_info.json")).parent
    files = {path.name: path.read_text() for path in [*home.glob("*.json"), *home.glob("*.txt")]}
    about = {"home": str(home.relative_to(root)), "files": files, "fingerprints": fingerprints}
    labels = {"train_labels": dataset.train_labels, "test_labels": dataset.test_labels}
    folder.mkdir(parents=True, exist_ok=True)
    parts = [("test", np.arange(len(dataset.test_labels)), dataset.test_inputs)]
    parts += [
        ("train", ids[at : at + IMAGES], dataset.train_inputs[ids[at : at + IMAGES]])
        for at in range(0, len(ids), IMAGES)
    ]
    for number, (part, places, images) in enumerate(parts):
        path = folder / f"{name}_{number}.npz"
        arrays = {"part": np.array(part), "ids": places, "strip": _strip(images)}
        if not number:
            arrays |= labels | {"about": np.array(json.dumps(about))}
        save_arrays(path, arrays)
        yield path


def unpack(folder: pathlib.Path, root: pathlib.Path) -> Iterator[str]:
    """Makes TFDS folders of packed files, and gives the names of the data sets.

    Images that are not packed are black there, and belong to no subset that may be run.

    Raises:
        FileNotFoundError: nothing is packed there.
        ValueError: the data folder has the data set already.
    """
    firsts = sorted(folder.glob("*_0.npz"))
    if not firsts:
        raise FileNotFoundError(f"{folder} holds no packed data set; pack one with --pack.")
    for first in firsts:
        name = first.name.removesuffix("_0.npz")
        if (root / name).exists():
            raise ValueError(f"{root / name} is there already; choose another --data_dir.")
        with np.load(first) as stored:
            about = json.loads(str(stored["about"]))
            arrays = {key: stored[key] for key in ("train_labels", "test_labels")}
        for part in ("train", "test"):
            shape = (len(arrays[f"{part}_labels"]), SIDE, SIDE, 3)
            arrays[f"{part}_inputs"] = np.zeros(shape, np.uint8)
        for path in sorted(folder.glob(f"{name}_*.npz")):
            with np.load(path) as stored:
                images = _images(stored["strip"])
                arrays[f"{stored['part']}_inputs"][stored["ids"]] = images
        draft = root / f"{name}.tmp"  # So that what a full disk has stopped is no data set.
        shutil.rmtree(draft, ignore_errors=True)
        home = draft / pathlib.Path(about["home"]).relative_to(name)
        write_json(draft / PACKED, about["fingerprints"])
        save_arrays(home / CACHE_NAME, {key: arrays[key] for key in ARRAYS})
        for file, text in about["files"].items():
            write_text(home / file, text)
        draft.rename(root / name)
        yield name


def _strip(images: UInt8[np.ndarray, "n 32 32 3"]) -> UInt8[np.ndarray, "m"]:
    """The bytes of a PNG in which the images stand one below the other."""
    out = io.BytesIO()
    Image.fromarray(images.reshape(-1, SIDE, 3)).save(out, "PNG")
    return np.frombuffer(out.getvalue(), np.uint8)


def _images(strip: UInt8[np.ndarray, "m"]) -> UInt8[np.ndarray, "n 32 32 3"]:
    image = Image.open(io.BytesIO(strip.tobytes()))
    return np.asarray(image).reshape(-1, SIDE, SIDE, 3)
