"""Hours and memory of tables 3, 4 and 6 on this device, by some steps on made features."""

import contextlib
import math
import pathlib
import tempfile
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from experiments.benchmarks.disk import photos
from experiments.benchmarks.footprint import size
from experiments.configs import large_sets
from experiments.documents.markdown import number, table
from experiments.program.compiled import Program
from experiments.program.experiment import own_fields
from experiments.program.features import FeatureSource
from experiments.program.prepared import Prepared, prepare
from experiments.runs.provenance import cores, device_name
from experiments.studies.rows import row_config
from experiments.studies.tables import TABLES
from otrw_jax.data.builders.image_files import read_middle
from otrw_jax.data.builders.long_tailed import LONG_TAILED
from otrw_jax.data.features import FeaturePart, FeatureSet
from otrw_jax.methods.base import Examples
from otrw_jax.models.backbones.resnet_imagenet import ResNetImageNet
from otrw_jax.models.image_encoder import BATCH, DEPTHS
from otrw_jax.training.devices import pick_devices
from otrw_jax.training.loop import Loop, epoch_key

WIDTH = 2048
"""Numbers of a feature of ResNet-50 and -152."""
WANTED = 2
"""Epochs that are timed of a stage after its first, which compiles; the shorter counts."""
LONG = 60.0
"""Seconds of an epoch of made features, from which on some of its steps are timed in its place."""
CALLS = (1, 5)
"""Steps of the two calls of the device whose difference is the time of a step, then: what a call
has to do once, whatever its steps, is small beside those of a whole epoch."""


class Cost(NamedTuple):
    """What a stage of a row needs.

    Attributes:
        name: of the stage.
        epochs: of the protocol.
        steps: of an epoch on the whole training list.
        seconds: of a step.
        refresh: seconds of an epoch's refresh, of the whole training list.
        memory: bytes of the data and the state on the device.
    """

    name: str
    epochs: int
    steps: int
    seconds: float
    refresh: float
    memory: int

    @property
    def hours(self) -> float:
        """Of the whole stage, without its evaluations."""
        return self.epochs * (self.steps * self.seconds + self.refresh) / 3600


class MadeSource(FeatureSource):
    """Random features in the place of a data set's, with its classes and few of its examples."""

    def __init__(self, config: ConfigDict, examples: int, width: int = WIDTH):
        self._examples, self._width = examples, width
        super().__init__(config)

    def _read(self, config: ConfigDict) -> tuple[FeatureSet, str]:
        about, rng = LONG_TAILED[config.data.name], np.random.default_rng(0)
        each = {"train": max(2, math.ceil(self._examples / about.classes)), "test": 1}
        each |= {"validation": config.data.meta_per_class} if "validation" in about.images else {}
        labels = np.arange(about.classes, dtype=np.int32)
        parts = {
            part: FeaturePart(
                rng.random((count * about.classes, self._width), np.float32).astype(np.float16),
                np.repeat(labels, count),
            )
            for part, count in each.items()
        }
        return FeatureSet(parts, tuple(map(str, labels)), ()), "made"


def report(names: list[str], rows: list[str], examples: int, encode: bool) -> dict[str, str]:
    """The texts of what is measured, by table; that of the extraction is `extraction`.

    Args:
        names: of tables.
        rows: of these; by default those that stand beside one of the paper's.
        examples: that an epoch has which is timed.
        encode: whether the extraction is timed too.
    """
    parts = {}
    if encode:
        parts["extraction"] = _extraction([TABLES[name].dataset for name in names])
    for name in names:
        chosen = rows or [row for row, about in TABLES[name].rows.items() if about.paper]
        parts[name] = _table(name, chosen, examples)
    return {name: f"{text}\n\nDevice: {device_name()}." for name, text in parts.items()}


def _extraction(datasets: list[str]) -> str:
    decoded, encoded, lines = decode_seconds(), {}, []
    for name in datasets:
        about, config = LONG_TAILED[name], large_sets.get_config(f"dataset={name}").encoder
        if config.network not in encoded:
            encoded[config.network] = encode_seconds(config.network, config.side)
        images, seconds = sum(about.images.values()), encoded[config.network]
        lines.append(
            [
                about.title,
                f"{images:,}",
                config.network,
                number(1 / decoded),
                number(1 / seconds),
                number(images * max(decoded / cores(), seconds) / 3600),
                size(2 * WIDTH * images),
            ]
        )
    header = ["data set", "images", "network", "decoded a core-second", "encoded a second"]
    return "\n\n".join(
        [
            f"Extraction, once. Decoded are JPEGs of {photos.WIDTH}×{photos.HEIGHT}, while others "
            f"are encoded, here by {cores()} cores: the hours are those of the slower of the two. "
            "The first check of all files decodes each once more.",
            table([*header, "hours", "features on the disk"], lines),
        ]
    )


def decode_seconds(repeats: int = 20) -> float:
    """Seconds in which a core decodes a photo and takes its middle."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "photo.jpg")
        photos.write_photo(path, np.random.default_rng(0), (40, 50))
        seconds = []
        for _ in range(repeats):
            begun = time.process_time()
            read_middle(path, 256, 224)
            seconds.append(time.process_time() - begun)
    return float(np.median(seconds))


def encode_seconds(name: str, side: int) -> float:
    """Seconds of an image in a batch of a network; what its weights are does not matter."""
    network, images = ResNetImageNet(DEPTHS[name]), jnp.ones((BATCH, side, side, 3))
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), shapes)
    apply = jax.jit(lambda v, x: network.apply(v, x, train=False))
    return min(_seconds(lambda: apply(variables, images)) for _ in range(3)) / BATCH


def _seconds(function) -> float:
    jax.block_until_ready(function())  # The first compiles.
    begun = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - begun


def _table(name: str, rows: list[str], examples: int) -> str:
    about, lines = TABLES[name], []
    for row in rows:
        for cost in costs(name, row, examples):
            lines.append(
                [
                    f"`{row}`",
                    cost.name,
                    str(cost.epochs),
                    f"{cost.steps:,}",
                    number(1e3 * cost.seconds),
                    number(cost.hours),
                    size(cost.memory),
                ]
            )
    header = ["row", "stage", "epochs", "steps an epoch", "ms a step", "hours", "memory"]
    return "\n\n".join(
        [
            f"{about.title}: a stage of each row, once its features are there, without "
            "evaluations. *Memory* is that of features and state on the device; a step's own comes "
            "on top. Rows whose first stage is cross-entropy share it. Where the made features are "
            f"an epoch of more than {LONG:g} s, {CALLS[1] - CALLS[0]} steps are timed.",
            table(header, lines),
        ]
    )


def costs(name: str, row: str, examples: int, width: int = WIDTH) -> list[Cost]:
    """What the stages of a row need; a first stage of cross-entropy is that of the row `ce`.

    Args:
        name: of the table.
        row: of the table.
        examples: of an epoch that is timed, at the least two a class.
        width: of the features.
    """
    about = TABLES[name]
    config = row_config(about.rows[row], about.dataset, about.imbalance_factor, {})
    config.data.folder = "made"
    source = MadeSource(config, examples, width)
    prepared = prepare(source, pick_devices(), 0)
    counts = tuple(prepared.split.counts.tolist())
    config = own_fields(config)

    def program_of(steps_per_call: int) -> Program:
        given = ConfigDict(config)
        given.steps_per_call = steps_per_call
        return Program(given, counts, (width,), "float16", source.preprocessing)

    program, short = program_of(config.steps_per_call), [program_of(steps) for steps in CALLS]
    variables, found = program.initial_variables(0), []
    for index in range(len(program.stages)):
        if index == 0 and len(program.stages) > 1:
            continue
        calls = [one.loops(0)[index] for one in short]
        found.append(_cost(program, calls, index, prepared, variables, about.dataset))
    return found


def _cost(
    program: Program, calls: list[Loop], index: int, prepared: Prepared, variables, dataset: str
) -> Cost:
    loop, key = program.loops(0)[index], program.stage_key(0, index)
    stage, published = loop.stage, LONG_TAILED[dataset]
    data = program.seen(stage, 0, prepared, variables).data
    made, whole = len(prepared.split.train), published.images["train"]
    steps = made // stage.batch_size
    few, more = (_seconds_of_a_call(loop, key, variables, data) for loop in calls)
    of_step = (more - few) / (CALLS[1] - CALLS[0])
    state, spent, refreshed = loop.start(key, variables, data), [], []
    for epoch in range(1 + WANTED):
        begun = time.perf_counter()
        if epoch:
            state = jax.block_until_ready(loop.refresh(state, data, epoch_key(key, epoch)))
        between = time.perf_counter()
        refreshed.append(between - begun)
        if of_step * steps < LONG:
            state, _ = loop.epoch(state, data, epoch_key(key, epoch), None)
            jax.block_until_ready(state)
            spent.append((time.perf_counter() - between) / steps)
    inputs = 4 * whole * data.raw.inputs.shape[1] if stage.method.reads_inputs else 0
    others = sum(_bytes(part) for part in (prepared.test, prepared.held_out, data.view.meta))
    of_data = _bytes(data.raw) * whole // made + inputs + others
    return Cost(
        stage.name,
        stage.epochs,
        whole // stage.batch_size,
        min(spent[1:], default=of_step),
        # The first of the timed ones compiles.
        refreshed[-1] * whole / made,
        of_data + _bytes(state) + 4 * (whole - made),
    )


def _seconds_of_a_call(loop: Loop, key: Array, variables, data: Any) -> float:
    """Seconds of an epoch's third call, as the first two compile; 0 where it has no fourth."""
    ended: list[float] = []

    def tick(_: float) -> None:
        ended.append(time.perf_counter())
        if len(ended) == 3:
            raise StopIteration

    with contextlib.suppress(StopIteration):
        loop.epoch(loop.start(key, variables, data), data, epoch_key(key, 0), tick)
    return ended[2] - ended[1] if len(ended) == 3 else 0.0


def _bytes(tree: Examples | None) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if hasattr(leaf, "nbytes"))
