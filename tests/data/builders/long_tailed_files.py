"""A made data set in the form of ImageNet-LT, Places-LT or iNaturalist 2018, for tests."""

import json

import numpy as np
from PIL import Image

from otrw_jax.data.builders.long_tailed import LONG_TAILED


def made_rows(counts, part, folder, shuffle=0):
    """Rows `path label` of a part, whose folders are not in the order of the classes."""
    rows = []
    for label, count in enumerate(counts):
        name = f"n{10 * len(counts) - 7 * label:08d}"
        rows += [(f"{folder}/{name}/{part}_{label}_{i:04d}.JPEG", label) for i in range(count)]
    order = np.random.default_rng(shuffle).permutation(len(rows))
    return [rows[i] for i in order]


def write_list(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{path} {label}\n" for path, label in rows))


def write_json(file, rows, names):
    """Annotations as iNaturalist's competition gives them."""
    content = {
        "info": {"year": 2018},
        "images": [{"id": 100 + i, "file_name": path} for i, (path, _) in enumerate(rows)],
        "annotations": [
            {"id": i, "image_id": 100 + i, "category_id": label}
            for i, (_, label) in enumerate(rows)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def save_jpeg(path, label, number, side=None):
    """A picture whose colours are its class's and whose size is its own."""
    rng = np.random.default_rng([label, number])
    height, width = (side, side) if side else rng.integers(20, 60, 2)
    low = np.random.default_rng(label).integers(0, 256, (3, 3, 3))
    low = np.clip(low + rng.normal(0, 20, low.shape), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(low).resize((int(width), int(height)), Image.Resampling.BICUBIC)
    image.save(path, "JPEG", quality=90)


def made_set(root, counts, name="imagenet_lt", validation=3, test=2, side=None):
    """Lists and images of each part; the rows by part."""
    each = {"train": counts, "validation": [validation] * len(counts), "test": [test] * len(counts)}
    rows, first = {}, 0
    for part, files in LONG_TAILED[name].lists.items():
        rows[part] = made_rows(each[part], part, "val" if part == "test" else "train")
        write_list(root / files[0], rows[part])
        for number, (path, label) in enumerate(rows[part], start=first):
            save_jpeg(root / path, label, number, side)
        first += len(rows[part])
    return rows
