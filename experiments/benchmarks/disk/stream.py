"""Training images from JPEGs on the disk: images a second of processor time, against PyTorch's."""

import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np

from experiments.benchmarks.disk import demand
from experiments.benchmarks.disk.photos import HEIGHT, WIDTH, write_photo
from experiments.benchmarks.timing import Effort, median_ratio
from experiments.documents.markdown import number, table
from otrw_jax.data.image_streams import ImageStream
from otrw_jax.data.photos import IMAGENET_MEAN, IMAGENET_STD, photo_preprocessing

SIDE, CROP, JITTER, BATCH = 256, 224, 0.4, 64
GOAL = 1.0


def run(effort: Effort) -> list[dict]:
    """A record of the squares read on the host, of what a network is given, of what it takes."""
    count = BATCH * (8 if effort.largest else 4)
    with tempfile.TemporaryDirectory() as folder:
        paths = _written(pathlib.Path(folder), count)
        order = np.random.default_rng(0).permutation(count)
        read = [
            _record(name, count, ours, theirs, effort)
            for name, ours, theirs in _pairs(paths, order)
        ]
    return [*read, demand.run(effort)]


def markdown(records: list[dict]) -> str:
    """The section's title, texts and tables."""
    *read, device = records
    rows = [
        [
            r["name"],
            number(r["ours"]),
            number(r["pytorch"]),
            number(r["ratio"]),
            number(1000 / r["ours"]),
            f"≥ {GOAL:.0f}, {'met' if r['ratio'] >= GOAL else 'missed'}",
        ]
        for r in read
    ]
    return "\n\n".join(
        [
            "### Images from the disk",
            f"Made JPEGs of {WIDTH}×{HEIGHT}, in batches of {BATCH}: brought to {SIDE}² on the "
            f"host; then, for a network, a random crop of {CROP}², mirrored, of other brightness, "
            "contrast and saturation, and standardised. Here the host decodes and resizes, and the "
            "rest is in the compiled call; PyTorch's DataLoader does all of it, by Pillow and in "
            "one thread, without workers. Images a second of processor time, of all threads and, "
            f"on a CPU, of the compiled call. Device: {jax.default_backend()}.",
            table(
                [
                    "images",
                    "ours, images/CPU-s",
                    "PyTorch, images/CPU-s",
                    "ours / PyTorch",
                    "cores for 1,000 images/s",
                    "goal",
                ],
                rows,
            ),
            demand.markdown(device, read[0]["ours"]),
        ]
    )


def _pairs(paths, order):
    """A name, and one pass over all images in each way."""
    from experiments.benchmarks.disk import loader

    stream = ImageStream(paths, SIDE)
    train = jax.jit(photo_preprocessing(CROP, jitter=JITTER).train)
    keys = jax.random.split(jax.random.key(0), BATCH)
    views = loader.Views(paths, SIDE, CROP, JITTER, IMAGENET_MEAN, IMAGENET_STD)

    def squares():
        with stream.batches(order, BATCH) as read:
            return sum(len(batch) for batch in read)

    def inputs():
        with stream.batches(order, BATCH) as read:
            return sum(len(jax.block_until_ready(train(keys, batch))) for batch in read)

    def of_loader(dataset):
        return lambda: sum(len(batch) for batch in loader.batches(dataset, order, BATCH))

    yield f"squares of {SIDE}²", squares, of_loader(loader.Squares(paths, SIDE))
    yield f"a network's inputs, {CROP}²", inputs, of_loader(views)


def _record(name, count, ours, theirs, effort):
    for function in (ours, theirs):  # Not counted: what is compiled, and read from the disk.
        assert function() == count
    seconds: dict[str, list[float]] = {"ours": [], "pytorch": []}
    for _ in range(effort.repeats):
        for who, function in (("ours", ours), ("pytorch", theirs)):
            start = time.process_time()
            function()
            seconds[who].append(time.process_time() - start)
    rates = {who: count / statistics.median(found) for who, found in seconds.items()}
    ratio = median_ratio(seconds["pytorch"], seconds["ours"])
    return {"section": "stream", "name": name, "images": count, **rates, "ratio": ratio}


def _written(folder: pathlib.Path, count: int) -> list[str]:
    """Paths of different JPEGs: smooth colours, with noise."""
    rng, paths = np.random.default_rng(0), [folder / f"{at}.jpg" for at in range(count)]
    for path in paths:
        write_photo(path, rng, (12, 16), noise=6.0, size=(HEIGHT, WIDTH))
    return [str(path) for path in paths]
