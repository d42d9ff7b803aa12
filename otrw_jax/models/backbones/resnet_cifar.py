"""Residual networks for images of 32×32 pixels."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from otrw_jax.models.branches import branch_names
from otrw_jax.models.initializers import kaiming_normal


class ResNetCifar(nn.Module):
    """CIFAR ResNet without its last layer: images `[b h w c]` to features `[b 4·width·branches]`.

    A 3×3 convolution, three stages of (depth - 2) / 6 blocks with 1, 2 and 4 times `width`
    channels, the second and third halving the resolution, and the mean over positions. Shortcuts
    have no parameters (option A). He et al., Deep Residual Learning for Image Recognition, CVPR
    2016, section 4.2; with depth 32 and 10 classes it has 464,154 parameters.

    Attributes:
        depth: number of layers with weights, the head included: 6 n + 2.
        width: channels of the first stage.
        axis_name: mapped axis over which batch normalisation takes its moments; none by default.
        dtype: type of the activations. Parameters, batch statistics and features are float32.
        branches: how many last blocks there are, side by side after a trunk they share; their
            features are put one after another. Two in BBN (Zhou et al., CVPR 2020, section 4).

    Raises:
        ValueError: the depth is not 6 n + 2 with n at least 1, or there is no branch; raised when
            the module is called.
    """

    depth: int = 32
    width: int = 16
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32
    branches: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b d"]:
        if self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(
                f"depth is {self.depth}; it must be 6 n + 2: 8, 14, 20, 32, 44, 56, …."
            )
        conv = partial(
            nn.Conv,
            kernel_size=(3, 3),
            padding=1,
            use_bias=False,
            kernel_init=kaiming_normal,
            dtype=self.dtype,
        )
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        x = nn.relu(norm(name="norm")(conv(self.width, name="conv")(x)))
        blocks = (self.depth - 2) // 6
        for stage in range(3):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                last = stage == 2 and block == blocks - 1
                name = f"stage{stage + 1}_block{block + 1}"
                names = branch_names(name, self.branches if last else 1)
                block_of = partial(_Block, self.width * 2**stage, stride, conv, norm)
                x = jnp.concatenate([block_of(name=name)(x) for name in names], axis=-1)
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


class _Block(nn.Module):
    channels: int
    stride: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        y = self.conv(self.channels, strides=self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.norm(name="norm2")(self.conv(self.channels, name="conv2")(y))
        return nn.relu(y + _shortcut(x, self.channels, self.stride))


def _shortcut(x: Float[Array, "b h w c"], channels: int, stride: int) -> Float[Array, "b h2 w2 c2"]:
    """Option A: every `stride`-th pixel, the new channels zero, half of them on either side."""
    missing = channels - x.shape[-1]
    pad = (missing // 2, missing - missing // 2)
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), pad))
