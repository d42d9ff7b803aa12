"""The classifier that a run on image files is: what it says of other files, and it in one.

And other examples, with their classes, in place of the test part of runs on images or features.

In one file it is a zip archive of `about.json`, the class names and the view that images are given
in, and of `classify`, serialised by `jax.export`: from pixels to probabilities.
"""

import importlib
import json
import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export
from jaxtyping import Float, Int32, Shaped, UInt8

from experiments.program.features import FeatureSource
from experiments.program.images.encoded_images import EncodedImagesSource
from experiments.program.images.files import ImageFileSource, shown
from experiments.runs.restoring import Restored
from otrw_jax.data.builders.image_folder import check_files
from otrw_jax.data.builders.image_lists import files_below, list_images
from otrw_jax.data.features import load_features
from otrw_jax.extras import brought_by
from otrw_jax.files import replacing
from otrw_jax.methods.base import Examples
from otrw_jax.training.streaming import Inputs

CLASSIFIER = ".zip"
PLATFORMS = ("cpu", "cuda", "tpu")


class Prediction(NamedTuple):
    """The class that is likeliest for a file, and its probability."""

    file: str
    name: str
    probability: float


class Predictions(NamedTuple):
    """Predictions of files in their order, and what of them was left out and why, a line each."""

    found: tuple[Prediction, ...]
    excluded: tuple[str, ...]


def predictions(restored: Restored, files: Sequence[str], max_excluded: int = 0) -> Predictions:
    """Predicts the classes of image files, and of all in a folder and its folders.

    Args:
        restored: a checkpoint of a run on a folder of images.
        files: paths of files and folders.
        max_excluded: so many files may be left out that are missing, damaged or no images.

    Raises:
        ValueError: the run is not on a folder of images, there is no file, or more cannot be read.
    """
    source = restored.source
    if not isinstance(source, ImageFileSource):
        raise ValueError(
            f"the run is on {restored.program.config.data.name}; only those on a folder of images "
            "(experiments/configs/image_folder.py, photos.py) predict image files."
        )
    paths = list(_files(files))
    outcomes = check_files(paths, shown)
    pairs = list(zip(paths, outcomes, strict=True))
    faults = tuple(f"{str(path)!r} is {fault}" for path, (_, fault) in pairs if fault)
    usable = [path for path, (_, fault) in pairs if not fault]
    _check(faults, len(paths), max_excluded)
    chances = np.asarray(jax.nn.softmax(restored.logits(source.inputs(usable)), axis=-1))
    best, names = chances.argmax(axis=1), source.dataset.class_names
    rows = zip(usable, best, chances.max(axis=1), strict=True)
    found = tuple(Prediction(str(path), names[c], float(p)) for path, c, p in rows)
    return Predictions(found, faults)


def _check(faults: Sequence[str], count: int, max_excluded: int) -> None:
    if not count:
        raise ValueError("there is no file in what is given; name image files, or folders of them.")
    if len(faults) > max_excluded or len(faults) == count:
        more = f"; and {len(faults) - 10} more" if len(faults) > 10 else ""
        way = f", or allow max_excluded={len(faults)}" if len(faults) < count else ""
        raise ValueError(
            f"{len(faults)} of {count} files cannot be used ({'; '.join(faults[:10])}{more}); mend "
            f"or remove them{way}."
        )


def _files(places: Sequence[str]) -> Iterator[pathlib.Path]:
    for place in map(pathlib.Path, places):
        path = place.expanduser()
        yield from files_below(path) if path.is_dir() else [path]


def write_classifier(path: pathlib.Path, restored: Restored) -> dict:
    """Writes encoder, preprocessing and the checkpoint's network, and returns `about.json`.

    `classify` takes images `uint8 [b, side, side, 3]`, any number at a time, and gives
    probabilities `[b, K]`, on a CPU, an NVIDIA GPU or a TPU. A transductive correction, which needs
    a whole test set, is not made.

    Args:
        path: of the file.
        restored: a checkpoint of a run on a folder of images.

    Raises:
        ModuleNotFoundError: flatbuffers is not installed.
        ValueError: the run is on something else.
        OSError: the file cannot be written; what was there is intact.
    """
    source, config = restored.source, restored.program.config
    if not isinstance(source, ImageFileSource):
        raise ValueError(
            f"the run is on {config.data.name}; only those on a folder of images are written as "
            f"classifiers (*{CLASSIFIER})."
        )
    with brought_by("export", __name__):
        importlib.import_module("flatbuffers")  # By which jax.export writes.
    side = source.view["side"]

    def classify(images: UInt8[Array, "b s s 3"]) -> Float[Array, "b k"]:
        return jax.nn.softmax(restored.logits(source.traced(images)), axis=-1)

    (batch,) = export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8)
    made = export.export(jax.jit(classify), platforms=PLATFORMS)(shape)
    about = {
        "classes": list(source.dataset.class_names),
        **source.view,
        "recipe": config.recipe,
        "epoch": restored.number,
        "fingerprint": restored.prepared.split.fingerprint,
    }
    with replacing(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("about.json", json.dumps(about, ensure_ascii=False, indent=1))
        file.writestr("classify", made.serialize())
    return about


def examples_at(restored: Restored, place: pathlib.Path) -> Examples:
    """The examples of a folder or file, as a run's test part holds its own.

    Args:
        restored: a checkpoint of a run on a folder of images, or on features.
        place: of a run on images, a folder of class folders or a table, all of whose parts are
            taken; of a run on features, a folder or file of them, of which the test part is taken,
            or the training part where there is no other.

    Raises:
        FileNotFoundError: there is no such place.
        ValueError: the run is on something else, a class is not one of the run's, a file cannot be
            read, or features are of another width.
    """
    source = restored.source
    if isinstance(source, ImageFileSource):
        found = _images(source, place)
    elif isinstance(source, FeatureSource) and not isinstance(source, EncodedImagesSource):
        found = _features(restored, place)
    else:
        raise ValueError(
            f"the run is on {restored.program.config.data.name}; --on is for runs on a folder of "
            "images, or on features."
        )
    inputs, names = found
    labels = _numbered(place, names, restored.prepared.dataset.class_names)
    inputs = inputs if isinstance(inputs, Inputs) else jnp.asarray(inputs)
    return Examples(inputs, jnp.asarray(labels))


def _images(source: ImageFileSource, place: pathlib.Path):
    listing = list_images(place)
    names = np.array([image.label for image in listing.images])
    _numbered(place, names, source.dataset.class_names)  # Before any image is read.
    paths = [listing.root / image.path for image in listing.images]
    faults = [f"{path!r} stands in no class folder" for path in listing.strays]
    pairs = zip(paths, check_files(paths, shown), strict=True)
    faults += [f"{str(path)!r} is {fault}" for path, (_, fault) in pairs if fault]
    if faults:
        more = f"; and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise ValueError(
            f"{place}: {len(faults)} files cannot be used ({'; '.join(faults[:10])}{more}); mend "
            "or remove them."
        )
    return source.inputs(paths), names


def _features(restored: Restored, place: pathlib.Path):
    found = load_features(place, test=False)
    part = found.parts.get("test", found.parts["train"])
    width = restored.prepared.test.inputs.shape[1]
    if part.features.shape[1] != width:
        raise ValueError(
            f"{place} has features of {part.features.shape[1]} numbers and the run's have {width}; "
            "they must be of one encoder."
        )
    stored = restored.prepared.test.inputs.dtype
    return part.features.astype(stored), np.array(found.class_names)[part.labels]


def _numbered(
    place: pathlib.Path, names: Shaped[np.ndarray, "n"], known: tuple[str, ...]
) -> Int32[np.ndarray, "n"]:
    """The run's numbers of classes by their names."""
    foreign = sorted(set(names.tolist()) - set(known))
    if foreign:
        raise ValueError(
            f"{place} has the classes {', '.join(foreign[:8])}, which the run does not have "
            f"({', '.join(known[:8])}{', …' if len(known) > 8 else ''}); leave these out, or name "
            "them as the run does."
        )
    places = {name: number for number, name in enumerate(known)}
    return np.array([places[name] for name in names.tolist()], np.int32)
