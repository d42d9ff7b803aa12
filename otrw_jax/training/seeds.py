"""Stacks of pytrees, one for each of several seeds that are trained together."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def stack(trees: list[PyTree]) -> PyTree:
    """Pytrees of one structure, as one whose leaves have a leading axis of seeds."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: PyTree, seeds: int) -> list[Any]:
    """What `stack` put together: one pytree a seed, in buffers of its own."""
    return [jax.tree.map(lambda x, at=at: x[at], tree) for at in range(seeds)]
