"""Models of networks that are not of flax's linen: of flax's NNX, and of Equinox."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Key, PyTree

from otrw_jax.models.model import Model


def nnx_model(
    make_backbone: Callable[[nnx.Rngs], nnx.Module], make_head: Callable[[nnx.Rngs], nnx.Module]
) -> Model:
    """The Model of two NNX modules.

    Parameters are the modules' variables of `nnx.Param` and the state is all else that the backbone
    keeps: batch statistics, and the keys and counts of its dropout, which go on with each training
    pass. Both are nested dicts. Devices that share a batch draw the same dropout.

    Args:
        make_backbone: from random numbers to a module, called as `backbone(inputs)`, which returns
            features `[b d]`. Training and evaluation are NNX's own modes, `train()` and `eval()`.
        make_head: likewise, called as `head(z)`, which returns logits `[b k]`; it may have
            parameters only.

    Raises:
        ValueError: the head keeps something beside its parameters.
    """
    backbone_of, head_of = _nnx_parts(make_backbone), _nnx_parts(make_head)
    backbone_def, *backbone_like = nnx.eval_shape(lambda: backbone_of(jax.random.key(0)))
    head_def, head_like, rest = nnx.eval_shape(lambda: head_of(jax.random.key(0)))
    _check_head("nnx_model", rest)

    def init(rng, inputs):
        del inputs
        backbone_rng, head_rng = jax.random.split(rng)
        _, params, state = map(_pure, backbone_of(backbone_rng))
        head = _pure(head_of(head_rng)[1])
        return {"params": {"backbone": params, "head": head}, "state": state}

    def features(variables, inputs, train):
        values = variables["params"]["backbone"], variables["state"]
        backbone = nnx.merge(backbone_def, *map(_filled, backbone_like, values))
        if not train:
            backbone.eval()
            return backbone(inputs), variables["state"]
        backbone.train()
        z = backbone(inputs)
        return z, _pure(nnx.split(backbone, nnx.Param, ...)[2])

    def logits(head_params, z):
        return nnx.merge(head_def, _filled(head_like, head_params))(z)

    return Model(init, features, logits)


def equinox_model(
    make_backbone: Callable[[Key[Array, ""]], Any], make_head: Callable[[Key[Array, ""]], Any]
) -> Model:
    """The Model of two Equinox modules, which see one example at a time as is Equinox's custom.

    Parameters are the modules themselves, with their floating arrays and None for all else. The
    state is the key of the backbone's dropout, of which each training pass takes the next, and an
    example what belongs to its place in the batch. Devices that share a batch draw alike.

    Args:
        make_backbone: from a key to a module, called as `backbone(x, key=key)` in training and
            `backbone(x)` in inference mode, which returns features `[d]`.
        make_head: from a key to a module, called as `head(z)`, which returns logits `[k]`.

    Raises:
        ModuleNotFoundError: Equinox is not installed.
        ValueError: a module keeps a state, such as batch statistics.
    """
    import equinox as eqx

    def fixed(make):
        """What is no floating array: functions, sizes, switches."""
        module = make(jax.random.key(0))
        indices = jax.tree.leaves(module, is_leaf=lambda x: isinstance(x, eqx.nn.StateIndex))
        if any(isinstance(x, eqx.nn.StateIndex) for x in indices):
            raise ValueError(
                f"equinox_model: {type(module).__name__} keeps a state beside its parameters; take "
                "layers without one, such as LayerNorm or GroupNorm."
            )
        return eqx.partition(module, eqx.is_inexact_array)[1]

    backbone_fixed, head_fixed = fixed(make_backbone), fixed(make_head)

    def init(rng, inputs):
        del inputs
        backbone_rng, head_rng, key = jax.random.split(rng, 3)
        made = {"backbone": make_backbone(backbone_rng), "head": make_head(head_rng)}
        params = {name: eqx.filter(module, eqx.is_inexact_array) for name, module in made.items()}
        return {"params": params, "state": {"key": key}}

    def features(variables, inputs, train):
        backbone = eqx.combine(variables["params"]["backbone"], backbone_fixed)
        if not train:
            return jax.vmap(eqx.nn.inference_mode(backbone))(inputs), variables["state"]
        key, now = jax.random.split(variables["state"]["key"])
        keys = jax.random.split(now, jax.tree.leaves(inputs)[0].shape[0])
        backbone = eqx.nn.inference_mode(backbone, value=False)
        return jax.vmap(lambda x, key: backbone(x, key=key))(inputs, keys), {"key": key}

    def logits(head_params, z):
        return jax.vmap(eqx.combine(head_params, head_fixed))(z)

    return Model(init, features, logits)


def _nnx_parts(make: Callable[[nnx.Rngs], nnx.Module]):
    """From a key to a module's definition, its parameters, and what else it keeps."""
    return lambda rng: nnx.split(make(nnx.Rngs(rng)), nnx.Param, ...)


def _pure(state: PyTree) -> PyTree:
    return nnx.to_pure_dict(state) if isinstance(state, nnx.State) else state


def _filled(like: nnx.State, values: PyTree) -> nnx.State:
    """NNX's state with the values of nested dicts."""
    state = jax.tree.map(lambda x: x, like)
    nnx.replace_by_pure_dict(state, values)
    return state


def _check_head(where: str, rest: nnx.State) -> None:
    if kept := sorted(map(str, _pure(rest))):
        raise ValueError(
            f"{where}: the head keeps {kept} beside its parameters; layers with a state belong to "
            "the backbone."
        )
