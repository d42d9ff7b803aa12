"""What a training method needs of a network, as pure functions over pytrees."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Key, PyTree


class Model(NamedTuple):
    """A network in two parts: a backbone that gives features, and a head that reads them.

    Variables are `{"params": {"backbone": …, "head": …}, "state": …}`, of any pytrees; the state
    holds what the backbone keeps beside its parameters, such as batch statistics, and the key of
    what it draws in training, such as dropout. Because the parts are apart,
    training the head alone is a matter of which subtree is differentiated, and the features of a
    frozen backbone can be computed once and kept.

    Attributes:
        init: `(rng, inputs) -> variables`; of the inputs only shape and type are used.
        features: `(variables, inputs, train) -> (z [b d], new_state)`, z the input of the head.
            With `train=False` the state is used and comes back unchanged.
        logits: `(head_params, z [b d]) -> logits [b k]`.
    """

    init: Callable[[Key[Array, ""], PyTree], PyTree]
    features: Callable[[PyTree, PyTree, bool], tuple[Float[Array, "b d"], PyTree]]
    logits: Callable[[PyTree, Float[Array, "b d"]], Float[Array, "b k"]]


def flax_model(backbone: nn.Module, head: nn.Module, rngs: Sequence[str] = ()) -> Model:
    """The Model of two linen modules.

    Args:
        backbone: called as `backbone(inputs, train)`, returns features `[b d]`. All its
            collections other than `params` are the Model's state.
        head: called as `head(z)`, returns logits `[b k]`; it may have parameters only.
        rngs: names of the random numbers that the backbone draws in training, such as
            `("dropout",)`. Their key is part of the state, and each training pass takes the next.
            Devices that share a batch draw alike.

    Raises:
        ValueError: by `init`, where the head has a collection other than `params`.
    """

    def init(rng, inputs):
        backbone_rng, head_rng = jax.random.split(rng)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs)
        state = backbone.lazy_init(backbone_rng, shapes, train=False)
        backbone_params = state.pop("params", {})
        if rngs:
            state = {**state, "rngs": jax.random.fold_in(rng, 2)}
        variables = {"params": {"backbone": backbone_params}, "state": state}
        z, _ = jax.eval_shape(lambda v, x: features(v, x, train=False), variables, shapes)
        variables["params"]["head"] = _init_head(head, head_rng, z)
        return variables

    def features(variables, inputs, train):
        state = dict(variables["state"])
        key = state.pop("rngs", None)
        backbone_variables = {"params": variables["params"]["backbone"], **state}
        if not train:
            return backbone.apply(backbone_variables, inputs, train=False), variables["state"]
        if key is None:
            return backbone.apply(backbone_variables, inputs, train=True, mutable=list(state))
        key, *keys = jax.random.split(key, 1 + len(rngs))
        own = dict(zip(rngs, keys, strict=True))
        z, after = backbone.apply(
            backbone_variables, inputs, train=True, mutable=list(state), rngs=own
        )
        return z, {**after, "rngs": key}

    return Model(init, features, _logits_of(head))


def identity_model(head: nn.Module) -> Model:
    """The Model whose features are its inputs `[b d]`: a head over features that were kept.

    Args:
        head: called as `head(z)`, returns logits `[b k]`; it may have parameters only.

    Raises:
        ValueError: by `init`, where the head has a collection other than `params`.
    """

    def init(rng, inputs):
        shapes = jax.ShapeDtypeStruct(inputs.shape, inputs.dtype)
        return {"params": {"backbone": {}, "head": _init_head(head, rng, shapes)}, "state": {}}

    def features(variables, inputs, train):
        del train
        return inputs, variables["state"]

    return Model(init, features, _logits_of(head))


def predict(model: Model, variables: PyTree, inputs: PyTree) -> Float[Array, "b k"]:
    """Logits of the inputs, in evaluation mode."""
    z, _ = model.features(variables, inputs, False)
    return model.logits(variables["params"]["head"], z)


def count_parameters(params: PyTree) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _init_head(head: nn.Module, rng: Key[Array, ""], z: jax.ShapeDtypeStruct) -> PyTree:
    collections = dict(head.lazy_init(rng, z))
    params = collections.pop("params", {})
    if collections:
        raise ValueError(
            f"the head {type(head).__name__} keeps {sorted(collections)} beside its parameters; "
            "layers with a state belong to the backbone."
        )
    return params


def _logits_of(head: nn.Module) -> Callable[[PyTree, Float[Array, "b d"]], Float[Array, "b k"]]:
    def logits(head_params: PyTree, z: Float[Array, "b d"]) -> Any:
        return head.apply({"params": head_params}, z)

    return logits
