"""A last layer that starts anew."""

from collections.abc import Callable

from jax import Array
from jaxtyping import PyTree

from otrw_jax.methods.base import Method


def with_fresh_head(method: Method, fresh_head: Callable[[Array], PyTree]) -> Method:
    """The method, from a new last layer on the trained backbone.

    With class-balanced sampling this is classifier re-training (cRT; Kang et al., Decoupling
    Representation and Classifier for Long-Tailed Recognition, ICLR 2020, section 4.1).

    Args:
        method: what trains the layer.
        fresh_head: from a key to the layer's parameters.
    """

    def init(key, variables, data):
        params = {**variables["params"], "head": fresh_head(key)}
        return method.init(key, {**variables, "params": params}, data)

    return method._replace(init=init)
