"""Images a second through EfficientNet-Lite0, and its depthwise layers in two ways."""

import statistics

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import Effort, interleaved, median_ratio
from experiments.documents.markdown import number, table
from otrw_jax.models.backbones.depthwise import DepthwiseConv
from otrw_jax.models.backbones.efficientnet import EfficientNetLite0
from otrw_jax.models.image_encoder import BATCH

SIDE = 128
LAYERS = ((64, 96, 3, 2), (32, 144, 5, 2), (8, 480, 3, 1), (8, 672, 5, 1), (4, 1152, 5, 1))
"""Some of the network's depthwise layers at that side: side, channels, side of filters, stride."""


def run(effort: Effort) -> list[dict]:
    """A record of the whole network, and one a layer; what the weights are does not matter."""
    return [_network(effort), *(_layer(effort, *layer) for layer in LAYERS)]


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    whole, *layers = records
    rows = [
        [r["name"], number(1e3 * r["seconds"]), number(1e3 * r["grouped"]), number(r["ratio"])]
        for r in layers
    ]
    return "\n\n".join(
        [
            "### Images to features",
            f"EfficientNet-Lite0 on images of {SIDE}², batches of {BATCH}: "
            f"{BATCH / whole['seconds']:.0f} images a second. Below, its depthwise convolutions as "
            "sums of shifted products, as the network has them, and as grouped convolutions. "
            f"Device: {jax.default_backend()}.",
            table(["layer", "shifted, ms", "grouped, ms", "grouped / shifted"], rows),
        ]
    )


def _network(effort):
    network, images = EfficientNetLite0(), _images(SIDE, 3)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), shapes)
    apply = jax.jit(lambda v, x: network.apply(v, x, train=False))
    seconds = interleaved({"network": lambda: apply(variables, images)}, effort)["network"]
    return {"section": "encoder", "name": "network", "seconds": statistics.median(seconds)}


def _layer(effort, side, channels, size, stride):
    images = _images(side, channels)
    shifted = DepthwiseConv(size, stride)
    grouped = nn.Conv(
        channels, (size, size), stride, "SAME", feature_group_count=channels, use_bias=False
    )
    variables = shifted.init(jax.random.key(0), images)
    applied = {
        name: jax.jit(layer.apply) for name, layer in (("shifted", shifted), ("grouped", grouped))
    }
    seconds = interleaved(
        {name: lambda f=f: f(variables, images) for name, f in applied.items()}, effort
    )
    return {
        "section": "encoder",
        "name": f"{size}×{size}, stride {stride}, {side}² × {channels}",
        "seconds": statistics.median(seconds["shifted"]),
        "grouped": statistics.median(seconds["grouped"]),
        "ratio": median_ratio(seconds["grouped"], seconds["shifted"]),
    }


def _images(side, channels):
    values = np.random.default_rng(0).normal(size=(BATCH, side, side, channels))
    return jnp.asarray(values, jnp.float32)
