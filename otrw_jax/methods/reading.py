"""Features of many examples, read a part of them at a time."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PyTree, Shaped

from otrw_jax.methods.base import Examples
from otrw_jax.models.model import Model

ROWS = 4096
"""Examples of which the logits are formed at once."""


def evaluated_features(model: Model) -> Callable[[PyTree, Examples], Float[Array, "n d"]]:
    """`(variables, examples) -> z [n d]`, in evaluation mode."""
    compiled = jax.jit(lambda variables, inputs: model.features(variables, inputs, False)[0])

    def features(variables, examples):
        return in_chunks(partial(compiled, variables), examples.inputs)

    return features


def in_chunks(
    function: Callable[[PyTree], Shaped[Array, "b ..."]],
    inputs: PyTree,
    size: int = 500,
    compiled: bool = False,
) -> Shaped[Array, "n ..."]:
    """Applies a function to `size` examples at a time: a bound on the memory it takes.

    Args:
        function: of a batch, such as its features; jitted.
        inputs: of all examples, leaves `[n, ...]`.
        size: examples at a time.
        compiled: whether this is part of a compiled function, and the chunks a loop in it.
    """
    count = jax.tree.leaves(inputs)[0].shape[0]
    if 0 < count <= size:
        return function(inputs)
    if not compiled:
        parts = [
            function(jax.tree.map(lambda x, at=at: x[at : at + size], inputs))
            for at in range(0, count, size)
        ]
        return jnp.concatenate(parts)
    chunks = -(-count // size)
    ids = jnp.minimum(jnp.arange(chunks * size), count - 1).reshape(chunks, size)
    parts = jax.lax.map(lambda ids: function(jax.tree.map(lambda x: x[ids], inputs)), ids)
    return parts.reshape(chunks * size, *parts.shape[2:])[:count]
