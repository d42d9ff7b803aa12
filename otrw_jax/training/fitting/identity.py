"""What a call of `fit` is, in hashes: its arrays, and the programs that its stages are."""

import hashlib
import importlib.metadata
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array, PyTree

PACKAGES = ("otrw_jax", "jax", "flax", "optax", "ott-jax")


def of_arrays(tree: PyTree) -> str:
    """16 hexadecimal digits that name arrays: a SHA-256 over their paths, types and contents."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode())
        _add(digest, leaf)
    return digest.hexdigest()[:16]


def of_program(traced: ClosedJaxpr) -> str:
    """16 hexadecimal digits that name what a function computes, with all its constants.

    The same in every process, under the same versions of the libraries.
    """
    text = re.sub(r"0x[0-9a-f]+", "", str(traced))  # Addresses of functions.
    digest = hashlib.sha256(text.encode())
    for constant in _constants(traced):
        _add(digest, constant)
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of what the programs are made by."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _constants(part: Any) -> Iterator[Array | np.ndarray]:
    """The arrays that are written into a program, and into those that it calls."""
    if isinstance(part, ClosedJaxpr):
        yield from part.consts
        part = part.jaxpr
    if not isinstance(part, Jaxpr):
        return
    for equation in part.eqns:
        yield from (x.val for x in equation.invars if isinstance(x, Literal) and np.ndim(x.val))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            yield from _constants(inner)


def _is_program(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


def _add(digest: Any, leaf: Any) -> None:
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    leaf = np.ascontiguousarray(leaf)
    digest.update(f"{leaf.dtype} {leaf.shape}".encode())
    digest.update(leaf.tobytes())
