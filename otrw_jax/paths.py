"""Names of the leaves of a pytree."""

from typing import Any

import jax
from jaxtyping import Array, PyTree


def path_name(path: tuple[Any, ...]) -> str:
    """The path of a leaf, as JAX gives it, its parts joined by slashes: `"head/Dense_0/kernel"`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: PyTree) -> dict[str, Array]:
    """The leaves of a pytree by their paths, in their order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
