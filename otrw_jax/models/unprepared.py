"""Inputs that lie on the device as they are stored, and become a network's when they pass it."""

from collections.abc import Callable

import jax
from flax import struct
from jaxtyping import Array, Key, PyTree

from otrw_jax.models.model import Model


class Unprepared(struct.PyTreeNode):
    """Stored inputs, and how a network is given them: a pytree, of which rows can be taken.

    Photographs take a fraction of the memory so, and are prepared where they are used, as many at a
    time as pass the network together. The network is one of `preparing`; a meta set of these is
    both that of the view and the one to be augmented (`DeviceData.raw_meta`).

    Attributes:
        stored: inputs as they are stored, leaves `[m ...]`.
        keys: of each input's augmentation; None where they are seen without.
        train: `(keys, stored) -> inputs`, with augmentation.
        evaluate: `stored -> inputs`, without.
    """

    stored: PyTree
    train: Callable[[Key[Array, "m"], PyTree], PyTree] = struct.field(pytree_node=False)
    evaluate: Callable[[PyTree], PyTree] = struct.field(pytree_node=False)
    keys: Key[Array, "m"] | None = None


def prepared(inputs: PyTree) -> PyTree:
    """Inputs as a network is given them: those of `Unprepared` prepared, all others as they are."""
    if not isinstance(inputs, Unprepared):
        return inputs
    if inputs.keys is None:
        return jax.jit(inputs.evaluate)(inputs.stored)
    return jax.jit(inputs.train)(inputs.keys, inputs.stored)


def preparing(model: Model) -> Model:
    """The network, which prepares inputs of `Unprepared` itself."""

    def features(variables, inputs, train):
        return model.features(variables, prepared(inputs), train)

    return model._replace(features=features)
