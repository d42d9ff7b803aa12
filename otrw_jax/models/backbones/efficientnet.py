"""EfficientNet-Lite0: a small network for photographs, whose trained weights come in a package."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from otrw_jax.models.backbones.depthwise import DepthwiseConv
from otrw_jax.models.backbones.resnet_cifar import kaiming_normal

SIDE = 224
"""Height and width of the images that the published weights were trained on."""
CENTER, SCALE = 127.0, 128.0
"""Those weights expect `(pixel - CENTER) / SCALE` of pixels from 0 to 255, in all three colours."""
STEM, TOP = 32, 1280


class _Group(NamedTuple):
    blocks: int
    size: int
    stride: int
    expansion: int
    channels: int


GROUPS = (
    _Group(1, 3, 1, 1, 16),
    _Group(2, 3, 2, 6, 24),
    _Group(2, 5, 2, 6, 40),
    _Group(3, 3, 2, 6, 80),
    _Group(3, 5, 1, 6, 112),
    _Group(4, 5, 2, 6, 192),
    _Group(1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its last layer: images `[b h w c]` to features `[b 1280]`.

    A 3×3 convolution of stride 2, 16 inverted bottlenecks and a 1×1 convolution, with ReLU6 after
    all but the bottlenecks' ends, and the mean over positions. Tan and Le, EfficientNet, ICML 2019,
    table 1, without squeeze-and-excitation, as the authors' program for small devices has it
    (tensorflow/tpu, models/official/efficientnet/lite); with a linear head of 1,000 classes it has
    4,652,008 parameters. Padding is TensorFlow's "SAME"; sides may be any.

    Neither dropout nor stochastic depth is drawn, in training either.

    Attributes:
        axis_name: mapped axis over which batch normalisation takes its moments; none by default.
        dtype: type of the activations. Parameters, batch statistics and features are float32.
    """

    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b d"]:
        conv = partial(
            nn.Conv, use_bias=False, padding="SAME", kernel_init=kaiming_normal, dtype=self.dtype
        )
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.99,
            epsilon=1e-3,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        x = nn.relu6(norm(name="stem_norm")(conv(STEM, (3, 3), strides=2, name="stem")(x)))
        block = 0
        for group in GROUPS:
            for stride in (group.stride, *[1] * (group.blocks - 1)):
                block += 1
                x = _Block(group, stride, conv, norm, name=f"block{block}")(x)
        x = nn.relu6(norm(name="top_norm")(conv(TOP, (1, 1), name="top")(x)))
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def standardised(images: UInt8[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Pixels from 0 to 255 as the published weights expect them."""
    return (images.astype(jnp.float32) - CENTER) / SCALE


class _Block(nn.Module):
    group: _Group
    stride: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        y, group = x, self.group
        if group.expansion > 1:
            expand = self.conv(group.expansion * x.shape[-1], (1, 1), name="expand")
            y = nn.relu6(self.norm(name="expand_norm")(expand(x)))
        depthwise = DepthwiseConv(group.size, self.stride, y.dtype, name="depthwise")
        y = nn.relu6(self.norm(name="depthwise_norm")(depthwise(y)))
        y = self.norm(name="project_norm")(self.conv(group.channels, (1, 1), name="project")(y))
        return x + y if x.shape == y.shape else y
