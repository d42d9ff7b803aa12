"""From a config to a network, and what it begins with."""

import hashlib
import pathlib
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.backbones.pointnet import PointNet
from otrw_jax.models.backbones.pointnet2 import PointNet2
from otrw_jax.models.backbones.resnet_cifar import ResNetCifar
from otrw_jax.models.backbones.resnet_imagenet import ResNetImageNet
from otrw_jax.models.heads import LinearHead, TanhHead
from otrw_jax.models.model import Model, flax_model
from otrw_jax.models.weights.resnet import load_resnet, load_resnet_for
from otrw_jax.training.devices import is_first_process


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
        case "resnet_imagenet":
            backbone = _resnet_imagenet(config, axis_name)
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
                f"model.name is {config.name!r}; choose mlp, resnet_cifar, resnet_imagenet, "
                "pointnet or pointnet2."
            )
    head = head or (TanhHead if config.name == "mlp" and config.tanh else LinearHead)
    return flax_model(backbone, head(num_classes))


def beginning(config: ConfigDict) -> str:
    """A name that changes with the weights that the network of `config.model` begins with.

    It is empty where these are drawn at random.

    Raises:
        FileNotFoundError: there is no such file of weights.
        ValueError: it cannot be read, or is of another network.
    """
    if not config.get("weights"):
        return ""
    path = pathlib.Path(config.weights)
    if not path.is_file():
        raise FileNotFoundError(f"model.weights: {path} is no file; give the path of weights.")
    load_resnet(path, _resnet_imagenet(config))
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def with_weights(config: ConfigDict, variables: PyTree, num_classes: int) -> PyTree:
    """The variables of a network, with the weights that `config.model` names in their place.

    The last layer is the file's where that has one of the same form, and says so.

    Args:
        config: `model` of a run's config.
        variables: the network's.
        num_classes: K.

    Raises:
        FileNotFoundError, ValueError: as `beginning`.
    """
    if not config.get("weights"):
        return variables
    weights = load_resnet_for(config.weights, _resnet_imagenet(config), num_classes)
    head, shapes = variables["params"]["head"], (lambda tree: jax.tree.map(jnp.shape, tree))
    own = shapes(weights.head) == shapes(head)
    if is_first_process():
        what = "and the last layer are" if own else "is"
        more = "" if own else ", which has no last layer of this form: it begins at random"
        print(f"{config.name}: the backbone {what} from {config.weights}{more}", flush=True)
    params = {"backbone": weights.backbone, "head": weights.head if own else head}
    return jax.tree.map(jnp.asarray, {"params": params, "state": weights.state})


def _resnet_imagenet(config: ConfigDict, axis_name: str | None = None) -> ResNetImageNet:
    kind = activation_type(config.dtype)
    return ResNetImageNet(config.depth, config.width, axis_name=axis_name, dtype=kind)


def activation_type(name: str):
    """The type of the activations; parameters, batch statistics and losses are float32.

    Raises:
        ValueError: it is neither float32 nor bfloat16.
    """
    types = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if name not in types:
        raise ValueError(f"model.dtype is {name!r}; choose {' or '.join(types)}.")
    return types[name]
