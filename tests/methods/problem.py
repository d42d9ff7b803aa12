"""A made long-tailed problem, small networks, and their mathematics spelled out by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from otrw_jax.losses import cross_entropy
from otrw_jax.methods.base import Batch, Examples, TrainingData
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import flax_model

# A step runs in a millisecond and compiles in seconds: not optimised, in two thirds of them.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

COUNTS = (26, 10, 4)
NUM_CLASSES = len(COUNTS)
DIM = 5

MODEL = flax_model(MLP((10, 8)), LinearHead(NUM_CLASSES))


class Normed(nn.Module):
    """One layer with batch normalisation."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(6)(x)
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)
        return nn.relu(x)


def normed_model(axis_name=None):
    return flax_model(Normed(axis_name), LinearHead(NUM_CLASSES))


def make_examples(counts, seed, dim=DIM):
    """Gaussian classes about fixed means, in a random order."""
    rng = np.random.default_rng(seed)
    means = 2 * np.random.default_rng(0).normal(size=(len(counts), dim))
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    inputs = means[labels] + rng.normal(size=(len(labels), dim))
    return Examples(jnp.asarray(inputs, jnp.float32), jnp.asarray(labels, jnp.int32))


def make_data():
    return TrainingData(make_examples(COUNTS, 1), make_examples((4, 4, 4), 2), NUM_CLASSES)


def batch_of(data, ids):
    ids = jnp.asarray(ids, jnp.int32)
    return Batch(data.train.inputs[ids], data.train.labels[ids], ids)


def make_batches(data, count, size=16, seed=3):
    """A stack of batches, leaves `[count, size, ...]`."""
    rng = np.random.default_rng(seed)
    total = data.train.labels.shape[0]
    batches = [batch_of(data, rng.permutation(total)[:size]) for _ in range(count)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)


def on_eight_devices(step, state, batches, meta):
    """Steps on all batches in turn, each spread over the devices: end state, metrics by step."""

    def steps(state, batches, meta):
        return jax.lax.scan(lambda state, batch: step(state, batch, meta), state, batches)

    spread = jax.pmap(
        steps,
        axis_name="batch",
        in_axes=(None, 0, None),
        out_axes=(None, None),
        devices=jax.devices("cpu")[:8],
    )
    count, size = batches.labels.shape
    by_device = [x.reshape(count, 8, size // 8, *x.shape[2:]).swapaxes(0, 1) for x in batches]
    return spread(state, Batch(*by_device), meta)


def make_variables(model=MODEL, seed=4):
    """Random kernels; biases are raised, so that no example's features are all zero."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), make_data().train.inputs)
    rng = np.random.default_rng(seed)

    def fill(path, x):
        match path[-1].key:
            case "kernel":
                values = rng.normal(size=x.shape) * np.sqrt(2 / x.shape[0])
            case "bias":
                values = np.full(x.shape, 0.5)
            case "scale" | "var":
                values = np.ones(x.shape)
            case "mean":
                values = np.zeros(x.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@jax.jit
def hand_features(params, x):
    for name in ("Dense_0", "Dense_1"):
        layer = params["backbone"][name]
        x = jnp.maximum(x @ layer["kernel"] + layer["bias"][None, :], 0)
    return x


@jax.jit
def hand_losses(params, x, y):
    head = params["head"]["Dense_0"]
    logits = hand_features(params, x) @ head["kernel"] + head["bias"][None, :]
    shifted = logits - logits.max(1, keepdims=True)
    return jnp.log(jnp.exp(shifted).sum(1)) - shifted[jnp.arange(len(y)), y]


@jax.jit
def hand_gradient(params, x, y, weights):
    """Of the sum of weighted cross-entropies of the MLP."""
    return jax.grad(lambda p: jnp.sum(weights * hand_losses(p, x, y)))(params)


def normed_losses(model, model_state):
    """Losses by batch statistics, `(params, examples)` to them and to what the state becomes."""

    def losses(params, examples):
        variables = {"params": params, "state": model_state}
        z, moved = model.features(variables, examples.inputs, True)
        return cross_entropy(model.logits(params["head"], z), examples.labels), moved

    return losses


def hand_cost(z, y, atoms, atom_labels, feature_weight=1.0, label_weight=1.0):
    """In float64."""
    z, atoms = np.float64(z), np.float64(atoms)
    lengths = np.outer(np.linalg.norm(z, axis=1), np.linalg.norm(atoms, axis=1))
    differ = np.asarray(y)[:, None] != np.asarray(atom_labels)[None, :]
    return feature_weight * (1 - z @ atoms.T / lengths) + label_weight * differ


def class_means(z, y):
    return np.stack([np.float64(z)[np.asarray(y) == c].mean(0) for c in range(NUM_CLASSES)])


def assert_trees_close(found, wanted, rtol=1e-4, atol=1e-6):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def assert_trees_equal(found, wanted):
    assert_trees_close(found, wanted, rtol=0, atol=0)
