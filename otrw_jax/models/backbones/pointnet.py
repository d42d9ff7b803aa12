"""Networks for point clouds that see each point alone, then all at once."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from otrw_jax.models.backbones.point_ops import largest
from otrw_jax.models.branches import branch_names
from otrw_jax.models.initializers import kaiming_normal, uniform_fan_in


class SharedMLP(nn.Module):
    """Fully connected layers along the last axis, the same at all places: `[... d]` to `[... w]`.

    Batch normalisation and a ReLU follow each layer. Layers that are normalised have no bias,
    which the normalisation would take away again, and start uniform within ±1/√fan_in, as the
    program of PointNet++ that the paper names; others have one, and start as kaiming normal.

    Attributes:
        widths: of the layers; w is the last.
        batch_norm: whether to normalise, over all axes but the last.
        axis_name: mapped axis over which batch normalisation takes its moments; none by default.
    """

    widths: Sequence[int]
    batch_norm: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "... d"], train: bool) -> Float[Array, "... w"]:
        start = uniform_fan_in if self.batch_norm else kaiming_normal
        # Places along one axis: on a CPU, XLA sums gradients over several far more slowly.
        *places, _ = x.shape
        x = x.reshape(-1, x.shape[-1])
        for number, width in enumerate(self.widths, 1):
            bias = not self.batch_norm
            x = nn.Dense(width, use_bias=bias, kernel_init=start, name=f"dense{number}")(x)
            if self.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=0.9,
                    epsilon=1e-5,
                    axis_name=self.axis_name,
                    name=f"norm{number}",
                )(x)
            x = nn.relu(x)
        return x.reshape(*places, x.shape[-1])


class PointNet(nn.Module):
    """PointNet without transformation nets: clouds `[b n 3]` to `[b branches·hidden[-1]]`.

    Layers that all points share, the maximum over the points, and fully connected layers; a ReLU
    follows every layer, the last one included. The order of the points does not matter, nor does
    how often a point occurs. Qi et al., PointNet: Deep Learning on Point Sets for 3D
    Classification and Segmentation, CVPR 2017, section 4.2. There is no dropout.

    Attributes:
        widths: of the layers before the maximum.
        hidden: of those after it; may be empty.
        batch_norm: whether batch normalisation follows each layer. In training it does see how
            often a point occurs.
        axis_name: mapped axis over which batch normalisation takes its moments; none by default.
        branches: how many sets of layers after the maximum there are, side by side; their features
            are put one after another.

    Raises:
        ValueError: there is no branch; raised when the module is called.
    """

    widths: Sequence[int] = (64, 128, 1024)
    hidden: Sequence[int] = (512, 256)
    batch_norm: bool = True
    axis_name: str | None = None
    branches: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b n 3"], train: bool) -> Float[Array, "b d"]:
        norm = (self.batch_norm, self.axis_name)
        x = largest(SharedMLP(self.widths, *norm, name="shared")(x, train), axis=1)
        names = branch_names("hidden", self.branches)
        parts = [SharedMLP(self.hidden, *norm, name=name)(x, train) for name in names]
        return jnp.concatenate(parts, axis=-1)
