"""Features of a frozen backbone, computed once and kept in place of the inputs."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key, PyTree

from otrw_jax.checks import check_number
from otrw_jax.methods.base import Examples, Method, matching_paths
from otrw_jax.methods.reading import in_chunks
from otrw_jax.models.model import Model
from otrw_jax.training.stages import DeviceData, Prepare, Stage
from otrw_jax.training.streaming import Inputs, placed_batches


def given_features(model: Model) -> Model:
    """The same network, given its features `[b d]` where inputs were.

    Variables stay those of the whole network, so that a checkpoint and an evaluation do not know
    the difference; what the method trains must lie in the head.
    """
    return model._replace(features=lambda variables, z, train: (z, variables["state"]))


def on_frozen_backbone(method: Method, trainable: str) -> Method:
    """The method on features that were kept; its `init` sees to it that they stay what they are.

    Args:
        method: over a network that is `given_features`.
        trainable: which parameters it trains, as in `split_params`.

    Raises:
        ValueError: from `init`, `trainable` matches a parameter of the backbone.
    """

    def init(key, variables, data):
        backbone = {"backbone": variables["params"]["backbone"]}
        if matched := sorted(matching_paths(backbone, trainable)):
            raise ValueError(
                f"feature_copies keeps the features of a frozen backbone, and trainable="
                f"{trainable!r} matches {matched[0]}; set trainable='head/.*', or feature_copies=0."
            )
        return method.init(key, variables, data)

    return method._replace(init=init)


def make_reader(
    model: Model, prepare: Callable[[PyTree], PyTree], size: int = 500
) -> Callable[[PyTree, Examples], Examples]:
    """Compiles the reading of examples by a backbone in evaluation mode; keep the result.

    Args:
        model: the network.
        prepare: from stored to network inputs, without augmentation.
        size: examples at a time.

    Returns:
        `(variables, examples) -> examples`, features `[n, d]` where stored inputs were; these may
        stay on the disk (`otrw_jax.training.streaming.Inputs`), and each process reads them all.
    """

    @jax.jit
    def of_stored(variables, inputs):
        return model.features(variables, prepare(inputs), False)[0]

    def read(variables, examples):
        of_batch = partial(of_stored, variables)
        if isinstance(examples.inputs, Inputs):
            ids = np.arange(len(examples.inputs))
            batches = placed_batches(examples.inputs, ids, size, jax.device_put)
            return Examples(jnp.concatenate(list(map(of_batch, batches))), examples.labels)
        return Examples(in_chunks(of_batch, examples.inputs, size), examples.labels)

    return read


def make_keeper(
    model: Model, prepare: Prepare, copies: int, size: int = 500
) -> Callable[[PyTree, DeviceData, Key[Array, ""]], DeviceData]:
    """Compiles the passage of a data set through a frozen backbone; keep the result.

    Args:
        model: the network; its features are those in evaluation mode.
        prepare: from stored to network inputs, with augmentation.
        copies: augmented copies of each training example that are kept. One is exact where
            nothing is augmented; otherwise it is the number of views that training sees.
        size: examples at a time.

    Returns:
        `(variables, data, key) -> data`, whose training inputs are features `[N, copies, d]`, of
        which `pick_copy` takes one at a visit, and whose view holds the features of the inputs
        that the view held. A meta set to be augmented, `raw_meta`, is kept in copies too.

    Raises:
        ValueError: `copies` is less than 1.
    """
    check_number("make_keeper", "copies", copies, least=1, whole=True)
    read = make_reader(model, lambda inputs: inputs, size)

    @jax.jit
    def of_stored(variables, inputs, ids, key):
        keys = jax.vmap(partial(jax.random.fold_in, key))(ids)
        inputs = prepare(keys, jax.tree.map(lambda x: x[ids], inputs))
        return model.features(variables, inputs, False)[0]

    def kept_copies(variables, stored, key):
        ids = jnp.arange(stored.labels.shape[0])
        kept = [
            jnp.concatenate(
                [
                    of_stored(variables, stored.inputs, ids[at : at + size], copy_key)
                    for at in range(0, ids.shape[0], size)
                ]
            )
            for copy_key in jax.random.split(key, copies)
        ]
        return Examples(jnp.stack(kept, axis=1), stored.labels)

    def keep(variables, data, key):
        train, meta = data.view.train, data.view.meta
        view = data.view.replace(
            train=train if train.inputs is None else read(variables, train),
            meta=None if meta is None else read(variables, meta),
        )
        raw_meta = data.raw_meta
        if raw_meta is not None:
            raw_meta = kept_copies(variables, raw_meta, jax.random.fold_in(key, 1))
        return DeviceData(kept_copies(variables, data.raw, key), view, raw_meta)

    return keep


def data_seen(
    stage: Stage,
    data: DeviceData,
    variables: PyTree,
    key: Key[Array, ""],
    prepare: Callable[[PyTree], PyTree],
    keeper: Callable[[int], Callable[[PyTree, DeviceData, Key[Array, ""]], DeviceData]],
) -> DeviceData:
    """The data that a stage trains on: inputs, or features kept of a frozen backbone.

    Args:
        stage: whose method may read the training set's inputs.
        data: as they are stored; the view has the training set's labels alone.
        variables: the network before the stage.
        key: of the copies' augmentation.
        prepare: from stored to network inputs, without augmentation.
        keeper: from the number of copies to what `make_keeper` compiles.
    """
    if stage.method.reads_inputs:
        train = data.view.train._replace(inputs=prepare(data.raw.inputs))
        data = data._replace(view=dataclasses.replace(data.view, train=train))
    if not stage.feature_copies:
        return data
    if stage.augment_meta == "never":
        data = data._replace(raw_meta=None)
    return keeper(stage.feature_copies)(variables, data, key)


def pick_copy(keys: Key[Array, "b"], kept: Float[Array, "b c d"]) -> Float[Array, "b d"]:
    """One of the kept copies of each example, at random: the `prepare` of kept features."""
    copies = kept.shape[1]
    if copies == 1:
        return kept[:, 0]
    picked = jax.vmap(lambda key: jax.random.randint(key, (), 0, copies))(keys)
    return jnp.take_along_axis(kept, picked[:, None, None], axis=1)[:, 0]
