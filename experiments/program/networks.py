"""From a config to a network."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.backbones.pointnet import PointNet
from otrw_jax.models.backbones.pointnet2 import PointNet2
from otrw_jax.models.backbones.resnet_cifar import ResNetCifar
from otrw_jax.models.heads import LinearHead, TanhHead
from otrw_jax.models.model import Model, flax_model


def make_model(
    config: ConfigDict,
    num_classes: int,
    axis_name: str | None = None,
    head: Callable[[int], nn.Module] | None = None,
    branches: int = 1,
) -> Model:
    """The network of `config.model`; batch normalisation takes its moments over the axis.

    Its last layer is linear, or ends in a tanh where the config says so, unless `head` is given.
    """
    match config.name:
        case "mlp":
            backbone = MLP(hidden=tuple(config.hidden), branches=branches)
        case "resnet_cifar":
            backbone = ResNetCifar(
                depth=config.depth,
                width=config.width,
                branches=branches,
                axis_name=axis_name,
                dtype=activation_type(config.dtype),
            )
        case "pointnet":
            backbone = PointNet(
                widths=tuple(config.widths),
                hidden=tuple(config.hidden),
                axis_name=axis_name,
                branches=branches,
            )
        case "pointnet2":
            levels = config.level1, config.level2
            backbone = PointNet2(
                points=tuple(level.points for level in levels),
                radii=tuple(level.radius for level in levels),
                neighbours=tuple(level.neighbours for level in levels),
                widths=(*(tuple(level.widths) for level in levels), tuple(config.widths)),
                hidden=tuple(config.hidden),
                axis_name=axis_name,
                branches=branches,
            )
        case _:
            raise ValueError(
                f"model.name is {config.name!r}; choose mlp, resnet_cifar, pointnet or pointnet2."
            )
    head = head or (TanhHead if config.name == "mlp" and config.tanh else LinearHead)
    return flax_model(backbone, head(num_classes))


def activation_type(name: str):
    """The type of the activations; parameters, batch statistics and losses are float32.

    Raises:
        ValueError: it is neither float32 nor bfloat16.
    """
    types = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if name not in types:
        raise ValueError(f"model.dtype is {name!r}; choose {' or '.join(types)}.")
    return types[name]
