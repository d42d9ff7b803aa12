"""Last layers: features to logits."""

import flax.linen as nn
from jaxtyping import Array, Float

from otrw_jax.backbones.resnet_cifar import kaiming_normal


class LinearHead(nn.Module):
    """An affine layer from features `[b d]` to logits `[b k]`.

    The weights start as kaiming normal, N(0, 2 / d), as in the program of LDAM (Cao et al.,
    NeurIPS 2019) and those built on it; the bias starts at zero.

    Attributes:
        num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, z: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return nn.Dense(self.num_classes, kernel_init=kaiming_normal)(z)
