"""What every way of training shares: Method, its data, parts of parameters, sums over devices."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.checks import check_examples
from otrw_jax.classes import is_class
from otrw_jax.models.model import Model, predict
from otrw_jax.paths import named_leaves

Metrics = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]
"""Name to (sum, count): added over steps and devices, divided once at the end."""


class Examples(NamedTuple):
    """Inputs `[n, ...]` as the network takes them, and their classes `[n]`."""

    inputs: PyTree
    labels: Int[Array, "n"]


class Batch(NamedTuple):
    """Examples with their positions in the training set, `ids [b]`.

    They differ from one another, except in batches that are drawn by `Method.sampling`.
    A label of no class, such as -1, may pad a batch: the losses give its example 0 and no gradient,
    and metrics do not count it. Methods that weigh the examples of a batch against one another (OT,
    `meta_weight_net`, `learned_weights`) count it among these: their batches are to be whole.
    """

    inputs: PyTree
    labels: Int[Array, "b"]
    ids: Int[Array, "b"]


@flax.struct.dataclass
class TrainingData:
    """What a method may see of the data beside the batches.

    Attributes:
        train: the whole training set, N examples; `inputs` may be None where a method does not
            read them (`Method.reads_inputs`): a dataset too large for the device.
        meta: the balanced meta set, or None.
        num_classes: number of classes K, static.
    """

    train: Examples
    meta: Examples | None
    num_classes: int = flax.struct.field(pytree_node=False)


ExampleWeights = Float[Array | np.ndarray, "N"]
"""A weight for each training example."""


def present(meta: Examples | None) -> Examples:
    """The meta set in a step, of which `init` has seen that it is there."""
    assert meta is not None
    return meta


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
        weights: `(state, read, batch_size) -> [N]`, the learned weight of each training example;
            None where none are learned. `read(variables)` is the training set with features in
            evaluation mode `[N, d]` in place of inputs; it is called where weights are made of
            features, and the batch size is asked where they depend on the other examples of a
            batch. Not part of a compiled function.
        reads_inputs: whether `init` or `refresh` read `data.train.inputs`, which may be None where
            not.
    """

    init: Callable[[Array, PyTree, TrainingData], Any]
    step: Callable[[Any, Batch, Examples | None], tuple[Any, Metrics]]
    refresh: Callable[[Any, TrainingData], Any] | None = None
    sampling: Callable[[Any, Int[Array, "N"]], Float[Array, "... N"]] | None = None
    logits: Callable[[PyTree, Float[Array, "b d"]], Float[Array, "b k"]] | None = None
    correct: Callable[[Float[Array, "n k"]], Float[Array, "n k"]] | None = None
    weights: Callable[[Any, Callable[[PyTree], Examples], int], ExampleWeights] | None = None
    reads_inputs: bool = False


def check_data(
    model: Model, variables: PyTree, data: TrainingData, num_classes: int | None = None
) -> None:
    """Raises a ValueError where data do not fit one another, a method or its network.

    Every method's `init` begins with it. Traced labels are not checked.

    Args:
        model: the network.
        variables: what it starts from.
        data: the training set and the meta set; inputs that are None are not checked.
        num_classes: K of the method, where it is given one.
    """
    k = data.num_classes
    if num_classes not in (None, k):
        raise ValueError(
            f"the method is for {num_classes} classes and the data have {k}; give both the same."
        )
    check_examples("training set", data.train.inputs, data.train.labels, k)
    inputs = data.train.inputs
    if data.meta is not None:
        check_examples("meta set", data.meta.inputs, data.meta.labels, k)
        inputs = data.meta.inputs if inputs is None else inputs
        kinds = [jax.tree.map(lambda x: x.shape[1:], x) for x in (inputs, data.meta.inputs)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"a training input has shape {kinds[0]} and a meta input {kinds[1]}; both go "
                "through one network."
            )
    if inputs is not None:
        logits = jax.eval_shape(lambda v, x: predict(model, v, x), variables, inputs)
        if logits.shape[1:] != (k,):
            raise ValueError(
                f"the network's logits have shape {logits.shape} and the data {k} classes; give "
                "its head an output for each class."
            )


def split_params(params: PyTree, trainable: str) -> tuple[PyTree, PyTree]:
    """Splits parameters into those whose path a regular expression matches, and the others.

    Args:
        params: `{"backbone": ..., "head": ...}`, of any pytrees: dicts, tuples, modules.
        trainable: matched against the whole path as `jax.tree_util.keystr` names it, such as
            `"head/Dense_0/kernel"`, `"head/0"` of a tuple or `"head/weight"` of an Equinox module;
            `".*"` is everything and `"head/.*"` the last layer.

    Returns:
        Two trees like `params`, each with None in place of what the other has, so that an optimiser
        is given the tree as it is. Differentiate a function of the first alone and nothing is
        propagated back through the rest.

    Raises:
        ValueError: nothing matches, or `trainable` is no regular expression.
    """
    leaves, chosen = named_leaves(params), matching_paths(params, trainable)
    if not chosen:
        raise ValueError(
            f"trainable={trainable!r} matches no parameter; the paths are like "
            f"{', '.join(list(leaves)[:3])}."
        )
    tree, matches = jax.tree.structure(params), [path in chosen for path in leaves]
    both = list(zip(matches, leaves.values(), strict=True))
    trained = jax.tree.unflatten(tree, [leaf if match else None for match, leaf in both])
    frozen = jax.tree.unflatten(tree, [None if match else leaf for match, leaf in both])
    return trained, frozen


def matching_paths(params: PyTree, trainable: str) -> set[str]:
    """Paths of the parameters that `split_params` would train.

    Raises:
        ValueError: `trainable` is no regular expression.
    """
    try:
        pattern = re.compile(trainable)
    except re.error as error:
        raise ValueError(
            f"trainable={trainable!r} is no regular expression: {error}; take one such as "
            "'.*' or 'head/.*'."
        ) from error
    return {path for path in named_leaves(params) if pattern.fullmatch(path)}


def merge_params(trained: PyTree, frozen: PyTree) -> PyTree:
    """Puts together what `split_params` took apart."""
    return jax.tree.map(
        lambda mine, other: other if mine is None else mine,
        trained,
        frozen,
        is_leaf=lambda leaf: leaf is None,
    )


def trains_backbone(trained: PyTree) -> bool:
    """Whether any of the trained parameters, as `split_params` gives them, lies in the backbone."""
    return bool(jax.tree.leaves(trained["backbone"]))


def over_size(gradient: PyTree, size: Float[Array, ""]) -> PyTree:
    """A gradient divided by the size of the batch, in the types that it has."""
    return jax.tree.map(lambda g: g / size.astype(g.dtype), gradient)


def global_sum(tree: PyTree, axis_name: str | None) -> PyTree:
    """Sums over the devices of an axis; without an axis, returns its argument."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def everywhere(tree: PyTree, axis_name: str | None) -> PyTree:
    """The rows of all devices, in the order of the devices; without an axis, its argument."""
    return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, tiled=True)


def here(rows: Array, axis_name: str | None) -> Array:
    """This device's rows of what `everywhere` put together."""
    if axis_name is None:
        return rows
    size = rows.shape[0] // jax.lax.axis_size(axis_name)
    return jax.lax.dynamic_slice_in_dim(rows, jax.lax.axis_index(axis_name) * size, size)


def devices_on(axis_name: str | None) -> int:
    """How many devices share an axis; one without an axis."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def classification_metrics(
    losses: Float[Array, "b"],
    logits: Float[Array, "b k"],
    labels: Int[Array, "b"],
    axis_name: str | None,
) -> Metrics:
    """Unweighted loss and error of a batch, as (sum, count) over all devices.

    Labels of no class, such as -1 of padding, do not count; their loss is 0, as `cross_entropy`
    has it.
    """
    known = is_class(labels, logits.shape[-1])
    wrong = known & (jnp.argmax(logits, axis=-1) != jnp.asarray(labels, jnp.int32))
    count = jnp.sum(known, dtype=jnp.float32)
    errors = jnp.sum(wrong, dtype=jnp.float32)
    return global_sum({"loss": (jnp.sum(losses), count), "error": (errors, count)}, axis_name)
