"""Fully connected networks, for small inputs such as digits of 8×8 pixels."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from otrw_jax.models.branches import branch_names


class MLP(nn.Module):
    """Fully connected layers: inputs `[b ...]`, flattened, to features `[b branches·hidden[-1]]`.

    A ReLU follows every layer, the last one included, so that features are non-negative as those
    of convolutional backbones are. Weights start as He normal.

    Attributes:
        hidden: width of each layer; without any, features are the inputs.
        branches: how many last layers there are, side by side after those they share; their
            features are put one after another.

    Raises:
        ValueError: there is no branch, or there are several and no layer to have them; raised when
            the module is called.
    """

    hidden: Sequence[int] = (128, 64)
    branches: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], train: bool) -> Float[Array, "b d"]:
        del train  # Training and evaluation do not differ.
        x = x.reshape(x.shape[0], -1)
        if not self.hidden:
            if self.branches > 1:
                raise ValueError(
                    f"MLP: {self.branches} branches need a layer; give hidden a width."
                )
            return x
        for layer, width in enumerate(self.hidden):
            last = layer == len(self.hidden) - 1
            names = branch_names(f"Dense_{layer}", self.branches if last else 1)
            he_normal = nn.initializers.he_normal()
            parts = [nn.Dense(width, kernel_init=he_normal, name=name)(x) for name in names]
            x = nn.relu(jnp.concatenate(parts, axis=-1))
        return x
