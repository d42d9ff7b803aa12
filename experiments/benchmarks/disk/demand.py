"""Images a second that a device trains on, and so what it asks of the host that reads them."""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.timing import Effort
from experiments.documents.markdown import number, table
from otrw_jax import erm, flax_model
from otrw_jax.methods.base import Batch, Examples, TrainingData
from otrw_jax.models.backbones.resnet_imagenet import ResNetImageNet
from otrw_jax.models.heads import LinearHead

NETWORK = ResNetImageNet(50, dtype=jnp.bfloat16)
SIDE, CLASSES = 224, 1000
BATCHES = {"cpu": 8}
"""Images of a step, by backend; `ELSEWHERE` on the others."""
ELSEWHERE = 256
STEPS = 3

EPOCH = 1_281_167
H100_SECONDS, H100_CARDS = 22.845, 8
"""An epoch of ImageNet in MLPerf Training 3.0, entry 3.0-2053: epoch 29 of its first log, ResNet-50
at 224² in half precision by MXNet, eight H100 SXM of 80 GB, 400 images a card and step."""


def run(effort: Effort) -> dict:
    """Images a second of cross-entropy's step of ResNet-50 in bfloat16, on one device."""
    backend = jax.default_backend()
    size = BATCHES.get(backend, ELSEWHERE)
    step = _Step(size)
    step()  # Compiles.
    rates = []
    for _ in range(max(2, effort.repeats // 2)):
        start = time.perf_counter()
        for _ in range(STEPS):
            out = step()
        jax.block_until_ready(out)
        rates.append(STEPS * size / (time.perf_counter() - start))
    return {
        "section": "stream",
        "device": f"this one, {backend}: {jax.devices()[0].device_kind}",
        "batch": size,
        "rate": statistics.median(rates),
    }


def markdown(record: dict, host: float) -> str:
    """The text and the table.

    Args:
        record: of `run`.
        host: squares that a core reads in a second.
    """
    h100 = EPOCH / H100_SECONDS / H100_CARDS
    devices = {record["device"]: record["rate"], "an H100, by MLPerf Training 3.0": h100}
    return "\n\n".join(
        [
            "### What a device asks of the host",
            f"ResNet-50 at {SIDE}², {CLASSES:,} classes. *This one* takes cross-entropy's step in "
            f"bfloat16, {record['batch']} images at a time, on images that it holds. The H100 is "
            "not timed here: entry 3.0-2053 of that round, a program written for speed alone, logs "
            f"{H100_SECONDS} s for an epoch of {EPOCH:,} images on {H100_CARDS} cards. A method "
            "that does more a step asks for fewer images. Cores are those that read and resize, by "
            "the first row above: where the device is no CPU, the rest is done there.",
            table(
                ["device", "images/s", "cores that keep it busy"],
                [[name, _count(rate), number(rate / host)] for name, rate in devices.items()],
            ),
        ]
    )


def _count(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else number(rate)


class _Step:
    """A compiled step, and the state that it donates and replaces."""

    def __init__(self, size: int):
        model = flax_model(NETWORK, LinearHead(CLASSES))
        method = erm(model, optax.sgd(0.1, momentum=0.9))
        rng = np.random.default_rng(0)
        images = jnp.asarray(rng.normal(size=(size, SIDE, SIDE, 3)), jnp.float32)
        labels = jnp.asarray(rng.integers(CLASSES, size=size), jnp.int32)
        data = TrainingData(Examples(None, labels), None, CLASSES)
        variables = model.init(jax.random.key(0), images[:2])
        self._state = method.init(jax.random.key(1), variables, data)
        self._batch = Batch(images, labels, jnp.arange(size))
        self._step = jax.jit(method.step, donate_argnums=0)

    def __call__(self):
        self._state, metrics = self._step(self._state, self._batch, None)
        return metrics
