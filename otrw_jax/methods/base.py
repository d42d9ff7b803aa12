"""What every way of training shares: the Method interface, its data, and parts of parameters."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PyTree

Metrics = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]
"""Name to (sum, count): added over steps and devices, divided once at the end."""


class Examples(NamedTuple):
    """Inputs `[n, ...]` as the network takes them, and their classes `[n]`."""

    inputs: PyTree
    labels: Int[Array, "n"]


class Batch(NamedTuple):
    """Examples with their positions in the training set, `ids [b]`.

    They differ from one another, except in batches that are drawn by `Method.sampling`.
    """

    inputs: PyTree
    labels: Int[Array, "b"]
    ids: Int[Array, "b"]


@flax.struct.dataclass
class TrainingData:
    """What a method may see of the data beside the batches.

    Attributes:
        train: the whole training set, N examples; `inputs` may be None where a method needs the
            labels alone (a dataset too large for the device).
        meta: the balanced meta set, or None.
        num_classes: number of classes K, static.
    """

    train: Examples
    meta: Examples | None
    num_classes: int = flax.struct.field(pytree_node=False)


class Method(NamedTuple):
    """A way of training, as pure functions; the loop belongs to the caller.

    Attributes:
        init: `(key, variables, data) -> state`, a pytree with a field `variables` and everything
            that a resumed run needs.
        step: `(state, batch, meta) -> (state, metrics)`; pure, to be jitted, scanned, vmapped and
            pmapped. `meta` is an Examples, or None where the method uses none.
        refresh: `(state, data) -> state`, what is done anew at the start of each epoch, or None for
            nothing; `init` has done it once. Under an axis of devices it is mapped like the step,
            with the same data on all of them, and takes this device's share of the work.
        sampling: `(state, labels [N]) -> [N]` unnormalised probabilities by which an epoch's
            examples are drawn, or None for a random order of all of them. With `[s, N]`, s
            distributions, a step's batch has `s b` examples: one of each distribution in turn.
        logits: `(head_params, z [b d]) -> [b k]`, where the head of the state's variables is not
            that of the model, or is read in another way; None for the model's.
        correct: `(logits [n k]) -> [n k]`, a map of the logits of a whole set that is evaluated;
            None for none. It may use that the examples are evaluated together (transductive).
    """

    init: Callable[[Array, PyTree, TrainingData], Any]
    step: Callable[[Any, Batch, Examples | None], tuple[Any, Metrics]]
    refresh: Callable[[Any, TrainingData], Any] | None = None
    sampling: Callable[[Any, Int[Array, "N"]], Float[Array, "... N"]] | None = None
    logits: Callable[[PyTree, Float[Array, "b d"]], Float[Array, "b k"]] | None = None
    correct: Callable[[Float[Array, "n k"]], Float[Array, "n k"]] | None = None


def split_params(params: PyTree, trainable: str) -> tuple[dict, dict]:
    """Splits parameters into those whose path a regular expression matches, and the others.

    Args:
        params: nested dicts `{"backbone": ..., "head": ...}`.
        trainable: matched against the whole path, such as `"head/Dense_0/kernel"`; `".*"` is
            everything and `"head/.*"` the last layer.

    Returns:
        Two flat dicts from path to array. Differentiate a function of the first alone and nothing
        is propagated back through the rest.

    Raises:
        ValueError: nothing matches.
    """
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    trained = {path: leaf for path, leaf in flat.items() if re.fullmatch(trainable, path)}
    if not trained:
        raise ValueError(
            f"trainable={trainable!r} matches no parameter; the paths are like "
            f"{', '.join(list(flat)[:3])}."
        )
    return trained, {path: leaf for path, leaf in flat.items() if path not in trained}


def merge_params(trained: dict, frozen: dict) -> PyTree:
    """Puts together what `split_params` took apart."""
    merged = flax.traverse_util.unflatten_dict({**frozen, **trained}, sep="/")
    return {"backbone": {}, "head": {}, **merged}


def trains_backbone(trained: dict) -> bool:
    """Whether any of the trained parameters lies in the backbone."""
    return any(path.startswith("backbone/") for path in trained)


def global_sum(tree: PyTree, axis_name: str | None) -> PyTree:
    """Sums over the devices of an axis; without an axis, returns its argument."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def classification_metrics(
    losses: Float[Array, "b"],
    logits: Float[Array, "b k"],
    labels: Int[Array, "b"],
    axis_name: str | None,
) -> Metrics:
    """Unweighted loss and error of a batch, as (sum, count) over all devices."""
    wrong = jnp.argmax(logits, axis=-1) != labels
    count = jnp.full((), labels.shape[0], jnp.float32)
    errors = jnp.sum(wrong, dtype=jnp.float32)
    return global_sum({"loss": (jnp.sum(losses), count), "error": (errors, count)}, axis_name)
