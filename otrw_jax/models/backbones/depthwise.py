"""A convolution of each channel with a filter of its own, as a sum of shifted products."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from otrw_jax.models.backbones.resnet_cifar import kaiming_normal


class DepthwiseConv(nn.Module):
    """Each channel with its own square filter: `[b h w c]` to `[b ⌈h/stride⌉ ⌈w/stride⌉ c]`.

    What `nn.Conv` gives with a group a channel and `padding="SAME"`, under the same name and shape
    of the kernel, to rounding. XLA's CPU backend fuses the shifted products into one loop, and is
    several times as fast with them as with a grouped convolution
    (`python -m experiments.benchmark --only=encoder`).

    Attributes:
        size: side of the filters.
        stride: in both directions.
        dtype: type of the result; the filters are float32.
    """

    size: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        kernel = self.param("kernel", kaiming_normal, (self.size, self.size, 1, x.shape[-1]))
        return shifted_products(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


def shifted_products(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int
) -> Float[Array, "b h2 w2 c"]:
    """The depthwise convolution: a product for each of the k² places of the filters.

    Zeros are put around the images as TensorFlow's "SAME" has it: as few as give
    ⌈side / stride⌉ places, and one more behind than in front where their number is odd.
    """
    size = kernel.shape[0]
    pads = jax.lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")
    last = [stride * (-(-side // stride) - 1) for side in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return sum(  # type: ignore[return-value]  # There is a place at the least.
        x[:, i : i + last[0] + 1 : stride, j : j + last[1] + 1 : stride]
        * kernel[i, j, 0][None, None, None]
        for i in range(size)
        for j in range(size)
    )
