"""Stacks of pytrees, one for each of several seeds that are trained together."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def stack(trees: list[PyTree]) -> PyTree:
    """Pytrees of one structure, as one whose leaves have a leading axis of seeds."""
    return _stack(*trees)


def unstack(tree: PyTree, seeds: int) -> list[Any]:
    """What `stack` put together: one pytree a seed, in buffers of its own."""
    return _unstack(tree, seeds)


# One program each, not one for every shape that is among the leaves.
@jax.jit
def _stack(*trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@partial(jax.jit, static_argnums=1)
def _unstack(tree, seeds):
    return [jax.tree.map(lambda x, at=at: x[at], tree) for at in range(seeds)]
