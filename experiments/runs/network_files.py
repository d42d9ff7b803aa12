"""Trained networks as one small file each, which a second stage starts from.

A file is in the safetensors format: the arrays of the network after its first stage by their paths,
batch statistics included, and in the header what they are, as JSON under one name.
"""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from experiments.configs import earlier
from otrw_jax.files import replacing
from otrw_jax.paths import named_leaves

SUFFIX = ".safetensors"
HEADER = "otrw_jax"


def is_network_file(path: str | os.PathLike) -> bool:
    """Whether a path names a network file, and not a run directory."""
    return pathlib.Path(path).suffix == SUFFIX


def stage1_of_seed(source: str | os.PathLike, seed: int) -> str | pathlib.Path:
    """Where one of several seeds has its first stage from.

    Args:
        source: a folder with run directories `seed_0`, ...; or the path of network files, `{seed}`
            in place of the seed; or "" for none.
        seed: the seed.
    """
    if not source:
        return ""
    if is_network_file(source):
        return pathlib.Path(str(source).replace("{seed}", str(seed)))
    return pathlib.Path(source) / f"seed_{seed}"


def write_network(path: str | os.PathLike, variables: PyTree, about: dict) -> None:
    """Writes a network file, whole or not at all.

    Args:
        path: of the file.
        variables: the network's arrays.
        about: JSON data: its config, history, results, where it comes from.

    Raises:
        OSError: it cannot be written; what was there is intact.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in named_leaves(variables).items()}
    content = safetensors.numpy.save(arrays, {HEADER: json.dumps(about)})
    with replacing(path) as draft:
        draft.write_bytes(content)


def read_about(path: str | os.PathLike) -> dict:
    """What a network file says of its network, without reading the arrays.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: it is not a whole network file.
    """
    return _read(path)[0]


def read_network(path: str | os.PathLike, template: PyTree) -> PyTree:
    """The arrays of a network file.

    Args:
        path: of the file.
        template: variables of the same structure, shapes and types; `jax.eval_shape` gives them.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: it is not a whole network file, or its arrays are not those of the template.
    """
    found, wanted = _read(path, arrays=True)[1], named_leaves(template)
    types = [
        {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}
        for leaves in (found, wanted)
    ]
    for name in sorted(found.keys() | wanted.keys()):
        have, want = (one.get(name, "absent") for one in types)
        if have != want:
            raise ValueError(
                f"{path} is of another network: {name} is {have} there and {want} here; take the "
                "file of this network, or train the first stage."
            )
    leaves = [jnp.asarray(found[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _read(path, arrays: bool = False) -> tuple[dict, dict[str, np.ndarray]]:
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; train the first stage, or export a run of it.")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()[HEADER])
            about["config"] = earlier.read(about["config"])
            names = file.keys() if arrays else ()
            return about, {name: file.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is not a whole network file ({type(error).__name__}: {error}); get it anew, "
            "or export it by `python -m experiments.export`."
        ) from error
