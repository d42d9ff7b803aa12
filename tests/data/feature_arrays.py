"""Small feature files that tests read: written of one set of arrays, in every form."""

import numpy as np
import pytest
import safetensors.numpy

WIDTH, EACH = 4, 3


def part(seed, labels=(0, 1, 2), dtype=np.float32):
    labels = np.repeat(labels, EACH)
    features = np.random.default_rng(seed).normal(size=(len(labels), WIDTH))
    return features.astype(dtype), labels


def plain(**others):
    """Arrays of a training and a test part; None takes one out."""
    arrays = {}
    for seed, name in enumerate(("train", "test")):
        arrays[f"{name}_features"], arrays[f"{name}_labels"] = part(seed)
    return {name: value for name, value in (arrays | others).items() if value is not None}


def write(folder, arrays, class_names=None):
    folder.mkdir(exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    if class_names is not None:
        (folder / "class_names.txt").write_text("\n".join(class_names) + "\n")
    return folder


def table(path, columns, **kinds):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {name: pa.array(list(v), kinds.get(name)) for name, v in columns.items()}
    parquet.write_table(pa.table(columns), path)
    return path


def of_parts(folder, save):
    folder.mkdir()
    arrays = plain()
    for name in ("train", "test"):
        kinds = {kind: arrays[f"{name}_{kind}"] for kind in ("features", "labels")}
        save(folder, name, kinds)
    return folder


def parquet_of_parts(folder, name, kinds):
    table(folder / f"{name}.parquet", {"features": kinds["features"], "label": kinds["labels"]})


def one_parquet(root):
    arrays = plain()
    both = [np.concatenate([arrays[f"{p}_{k}"] for p in ("train", "test")]) for k in KINDS]
    split = np.repeat(["train", "test"], 3 * EACH)
    return table(root / "all.parquet", {"features": both[0], "label": both[1], "split": split})


KINDS = ("features", "labels")


FORMS = {
    "npy": lambda root: write(root / "npy", plain()),
    "npz": lambda root: np.savez(root / "all.npz", **plain()) or root / "all.npz",
    "npz of parts": lambda root: of_parts(
        root / "npz", lambda folder, name, kinds: np.savez(folder / f"{name}.npz", **kinds)
    ),
    "safetensors": lambda root: (
        safetensors.numpy.save_file(plain(), root / "all.safetensors") or root / "all.safetensors"
    ),
    "safetensors of parts": lambda root: of_parts(
        root / "safetensors",
        lambda folder, name, kinds: safetensors.numpy.save_file(
            kinds, folder / f"{name}.safetensors"
        ),
    ),
    "parquet": one_parquet,
    "parquet of parts": lambda root: of_parts(root / "parquet", parquet_of_parts),
}
