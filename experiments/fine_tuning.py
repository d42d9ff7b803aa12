"""An encoder trained further on balanced examples, before its features are taken."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int, PyTree
from ml_collections import ConfigDict
from rich.progress import track

from otrw_jax import erm
from otrw_jax.backbones.bert import Bert
from otrw_jax.backbones.heads import LinearHead
from otrw_jax.methods.base import Batch, Examples, TrainingData
from otrw_jax.model import flax_model

Pieces = dict[str, np.ndarray]
"""Ids and mask of word pieces, `[n t]`."""


def fine_tuned(
    network: Bert,
    params: PyTree,
    pieces: Pieces,
    labels: Int[np.ndarray, "e"],
    num_classes: int,
    config: ConfigDict,
    seed: int,
) -> PyTree:
    """Parameters of the encoder after training with a linear head, by cross-entropy and Adam.

    Guo et al. 2022, section 6.2 and table 10. There is no dropout, and the head is thrown away.

    Args:
        network: the encoder.
        params: its parameters, left as they are.
        pieces: word pieces of the examples.
        labels: their classes.
        num_classes: K.
        config: epochs, batch_size, learning_rate.
        seed: of the head's start and the order of the examples.

    Raises:
        ValueError: there are fewer examples than a batch has.
    """
    size = config.batch_size
    if len(labels) < size:
        raise ValueError(
            f"the encoder is fine-tuned in batches of {size}, and there are {len(labels)} extra "
            "examples; take a smaller encoder.fine_tuning.batch_size."
        )
    model = flax_model(network, LinearHead(num_classes))
    method = erm(model, optax.adam(config.learning_rate))
    key = jax.random.fold_in(jax.random.key(seed), 3)
    few = jax.tree.map(lambda x: jnp.asarray(x[:1]), pieces)
    variables = model.init(key, few)
    variables["params"]["backbone"] = params
    data = TrainingData(Examples(few, jnp.asarray(labels[:1])), None, num_classes)
    state = jax.tree.map(jnp.copy, method.init(key, variables, data))
    step = jax.jit(method.step, donate_argnums=0)
    rng = np.random.default_rng(seed)
    steps = config.epochs * (len(labels) // size)
    for _, ids in zip(
        track(range(steps), f"fine-tuning on {len(labels)} sentences"),
        _batches(rng, len(labels), size),
        strict=False,
    ):
        inputs = jax.tree.map(jnp.asarray, trimmed(pieces, ids))
        state, _ = step(state, Batch(inputs, jnp.asarray(labels[ids]), jnp.asarray(ids)), None)
    return state.variables["params"]["backbone"]


def trimmed(pieces: Pieces, rows: Int[np.ndarray, "b"], multiple: int = 16) -> Pieces:
    """Some rows, as wide as the longest of them; rounded up, so that few shapes are compiled."""
    longest = int(pieces["mask"][rows].sum(1).max())
    width = -(-longest // multiple) * multiple
    return {name: values[rows, :width] for name, values in pieces.items()}


def _batches(rng: np.random.Generator, count: int, size: int) -> Iterator[Int[np.ndarray, "b"]]:
    """Batches of one random order after another; what is left over at an end is not used."""
    while True:
        order = rng.permutation(count)
        yield from (order[at : at + size] for at in range(0, count - size + 1, size))
