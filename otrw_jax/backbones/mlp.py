"""Fully connected networks, for small inputs such as digits of 8×8 pixels."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float


class MLP(nn.Module):
    """Fully connected layers: inputs `[b ...]`, flattened, to features `[b hidden[-1]]`.

    A ReLU follows every layer, the last one included, so that features are non-negative as those
    of convolutional backbones are. Weights start as He normal.

    Attributes:
        hidden: width of each layer.
    """

    hidden: Sequence[int] = (128, 64)

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], train: bool) -> Float[Array, "b d"]:
        del train  # Training and evaluation do not differ.
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=nn.initializers.he_normal())(x))
        return x
