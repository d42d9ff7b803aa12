"""An encoder trained further on balanced examples, before its features are taken."""

import contextlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int, PyTree
from ml_collections import ConfigDict
from rich.progress import track

from otrw_jax import erm
from otrw_jax.methods.base import Batch, Examples, TrainingData
from otrw_jax.models.backbones.bert import Bert
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import flax_model
from otrw_jax.training.checkpoints import Checkpoints

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
    folder: pathlib.Path | None = None,
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
        folder: where the state of each epoch is kept; a call that was interrupted goes on from
            there, from one that is whole, and ends bit for bit like one that was not. None keeps
            nothing.

    Raises:
        ValueError: there are fewer examples than a batch has.
        CheckpointError: a state cannot be written.
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
    orders = [rng.permutation(len(labels)) for _ in range(config.epochs)]
    steps = len(labels) // size  # What is left over at the end of an order is not used.
    with Checkpoints(folder, keep=1) if folder else contextlib.nullcontext() as checkpoints:
        whole = (
            [at for at in checkpoints.steps() if not checkpoints.damage(at)] if checkpoints else []
        )
        done = max(whole, default=0)
        if checkpoints:
            checkpoints.forget_after(done)
        if checkpoints and done:
            state = checkpoints.restore(state, done)
        for at in track(
            range(done * steps, config.epochs * steps),
            f"fine-tuning on {len(labels)} sentences, epochs {done + 1} to {config.epochs}",
        ):
            epoch, first = at // steps, at % steps * size
            ids = orders[epoch][first : first + size]
            inputs = jax.tree.map(jnp.asarray, trimmed(pieces, ids))
            state, _ = step(state, Batch(inputs, jnp.asarray(labels[ids]), jnp.asarray(ids)), None)
            if checkpoints and (at + 1) % steps == 0:
                checkpoints.save(epoch + 1, state, {})
    return state.variables["params"]["backbone"]


def trimmed(pieces: Pieces, rows: Int[np.ndarray, "b"], multiple: int = 16) -> Pieces:
    """Some rows, as wide as the longest of them; rounded up, so that few shapes are compiled."""
    longest = int(pieces["mask"][rows].sum(1).max())
    width = -(-longest // multiple) * multiple
    return {name: values[rows, :width] for name, values in pieces.items()}
