"""PointNet++: networks for point clouds that look around points, in ever larger balls."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from otrw_jax.models.backbones.point_ops import (
    ball_query,
    farthest_points,
    gather_points,
    group,
    largest,
)
from otrw_jax.models.backbones.pointnet import SharedMLP
from otrw_jax.models.branches import branch_names


class PointNet2(nn.Module):
    """PointNet++ with one scale a level: clouds `[b n 3]` to `[b branches·hidden[-1]]`.

    Each level chooses centres among the points of the level before, farthest first, and gives each
    the maximum over its ball of what shared layers make of the points there: their coordinates as
    seen from the centre, and their features. One more set of shared layers and the maximum over
    all centres follow, with the coordinates as they are, then fully connected layers; a ReLU
    follows every layer, the last one included. Qi et al., PointNet++: Deep Hierarchical Feature
    Learning on Point Sets in a Metric Space, NeurIPS 2017 (SSG in its appendix), in the sizes of
    the program github.com/yanx27/Pointnet_Pointnet2_pytorch; with a linear head of 10 classes it
    has 1,464,650 parameters.

    It differs from that program in three things. There is no dropout, which follows both hidden
    layers there with a probability of 0.4: `Model.features` takes no random numbers. The first
    centre is the first point of the cloud, there a random one; clouds whose points come in random
    order, as `augment_points` gives them in training, make up for it. Since farthest points are
    nested, the centres of a level are the first of those of the level before. Layers before batch
    normalisation have no bias, which makes 3,328 parameters fewer and the same functions.

    The order of the points matters where a ball holds more of them than its neighbours' number,
    and in the point that comes first.

    Attributes:
        points: centres of each level, no more than at the level before. Where there are as many as
            the cloud has points, every point is a centre, and the order alone is chosen.
        radii: of the balls of each level, in the unit of the coordinates.
        neighbours: points that a ball gives, the first inside it, padded with the first.
        widths: of the shared layers of each level, and of those over all centres.
        hidden: of the fully connected layers.
        axis_name: mapped axis over which batch normalisation takes its moments; none by default.
        branches: how many sets of fully connected layers there are, side by side; their features
            are put one after another.

    Raises:
        ValueError: the levels of `points`, `radii`, `neighbours` and `widths` do not fit, the
            centres grow in number from level to level, or there are fewer points than centres or
            neighbours, or no branch; raised when the module is called.
    """

    points: Sequence[int] = (512, 128)
    radii: Sequence[float] = (0.2, 0.4)
    neighbours: Sequence[int] = (32, 64)
    widths: Sequence[Sequence[int]] = ((64, 64, 128), (128, 128, 256), (256, 512, 1024))
    hidden: Sequence[int] = (512, 256)
    axis_name: str | None = None
    branches: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b n 3"], train: bool) -> Float[Array, "b d"]:
        self._check()
        layers = partial(SharedMLP, axis_name=self.axis_name)
        *widths, widths_over_all = self.widths
        chosen = gather_points(x, farthest_points(x, self.points[0]))
        features: Array | None = None
        levels = zip(self.points, self.radii, self.neighbours, widths, strict=True)
        for level, (count, radius, neighbours, width) in enumerate(levels, 1):
            centres = chosen[:, :count]
            around = group(x, features, ball_query(radius, neighbours, x, centres), centres)
            features = largest(layers(width, name=f"level{level}")(around, train), axis=2)
            x = centres
        x = x if features is None else jnp.concatenate([x, features], axis=-1)
        x = largest(layers(widths_over_all, name="all")(x, train), axis=1)
        names = branch_names("hidden", self.branches)
        parts = [layers(self.hidden, name=name)(x, train) for name in names]
        return jnp.concatenate(parts, axis=-1)

    def _check(self) -> None:
        levels = len(self.points)
        if levels < 1 or (levels, levels, levels + 1) != (
            len(self.radii),
            len(self.neighbours),
            len(self.widths),
        ):
            raise ValueError(
                f"points, radii, neighbours and widths are of {levels}, {len(self.radii)}, "
                f"{len(self.neighbours)} and {len(self.widths)} levels; the first three must be of "
                "as many, 1 or more, and widths of one more."
            )
        if list(self.points) != sorted(self.points, reverse=True):
            raise ValueError(f"points is {self.points}; they must not grow from level to level.")
