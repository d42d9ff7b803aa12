"""Residual networks with bottlenecks, for images of 224×224 pixels."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from otrw_jax.models.initializers import kaiming_normal

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth to the number of blocks in each of the four stages."""


class ResNetImageNet(nn.Module):
    """ImageNet ResNet without its last layer: images `[b h w c]` to features `[b 32·width]`.

    A 7×7 convolution and a maximum over 3×3, both of stride 2, then four stages of bottleneck
    blocks; the second, third and fourth halve the resolution, in their first block's 3×3
    convolution, and project the shortcut. He et al., Deep Residual Learning for Image Recognition,
    CVPR 2016, table 1, with the stride where later implementations have it; with depth 50 and a
    linear head of 1,000 classes it has 25,557,032 parameters.

    Attributes:
        depth: 50, 101 or 152.
        width: channels of the first stage's 3×3 convolutions.
        axis_name: mapped axis over which batch normalisation takes its moments; none by default.
        dtype: type of the activations. Parameters, batch statistics and features are float32.

    Raises:
        ValueError: there is no such depth; raised when the module is called.
    """

    depth: int = 50
    width: int = 64
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b d"]:
        if self.depth not in BLOCKS:
            raise ValueError(f"depth is {self.depth}; choose one of {', '.join(map(str, BLOCKS))}.")
        conv = partial(nn.Conv, use_bias=False, kernel_init=kaiming_normal, dtype=self.dtype)
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        x = conv(self.width, (7, 7), strides=2, padding=3, name="conv")(x)
        x = nn.relu(norm(name="norm")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(BLOCKS[self.depth]):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = _Bottleneck(self.width * 2**stage, stride, conv, norm, name=name)(x)
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


class _Bottleneck(nn.Module):
    channels: int
    stride: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        y = nn.relu(self.norm(name="norm1")(self.conv(self.channels, (1, 1), name="conv1")(x)))
        y = self.conv(self.channels, (3, 3), strides=self.stride, padding=1, name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.norm(name="norm3")(self.conv(4 * self.channels, (1, 1), name="conv3")(y))
        if x.shape != y.shape:
            projection = self.conv(4 * self.channels, (1, 1), strides=self.stride, name="shortcut")
            x = self.norm(name="shortcut_norm")(projection(x))
        return nn.relu(y + x)
