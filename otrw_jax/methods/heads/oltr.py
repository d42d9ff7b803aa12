"""Dynamic meta-embedding (OLTR): features to which a memory of class centroids is added."""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int, PyTree

from otrw_jax.checks import check_number
from otrw_jax.classes import is_class, of_class
from otrw_jax.losses import cross_entropy, wide
from otrw_jax.methods.base import Method, check_data, global_sum, over_size
from otrw_jax.methods.part import Part, TrainState
from otrw_jax.methods.reading import evaluated_features
from otrw_jax.models.model import Model
from otrw_jax.samplers import class_power, sampled

REACH = 10.0
"""γ_r is this over the distance to the nearest centroid."""
SCALE = 16.0
"""Factor of the cosines in the logits."""
MARGIN = 10.0
"""Mean squared distance to the other classes' centroids from which nothing is pushed away."""
REPULSION = 0.01
"""Factor of the pushing term in the centroid loss."""
CLOSEST = 1e-4
"""Least distance to a centroid that γ_r takes: an example may lie on it."""


@flax.struct.dataclass
class OLTRState(TrainState):
    """State of `oltr`, whose variables have the head that `oltr` gives them.

    Attributes:
        memory_opt_state: the memory's optimiser's.
    """

    memory_opt_state: PyTree


def oltr(
    model: Model,
    optimizer: optax.GradientTransformation,
    memory_optimizer: optax.GradientTransformation,
    num_classes: int,
    *,
    centroid_weight: float = 0.01,
    hallucinator_from_head: bool = True,
    trainable: str = ".*",
    batch_norm: bool = True,
    axis_name: str | None = None,
) -> Method:
    """Trains a head with a memory of class centroids: stage 2, for a network after stage 1.

    Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019, section 3. The
    head of the state's variables is `{"memory": M [K, d], "hallucinator": {kernel, bias},
    "selector": {kernel, bias}, "classifier": {kernel [d, K]}}`, read by `meta_embedding` and
    `cosine_logits`. The objective (eqs. 7 and 9) is cross-entropy plus `centroid_weight` times,
    as in the authors' program,

        mean_i ½ ‖f_i - M_{y_i}‖² + 0.01 [10 - mean_i (1/K) Σ_{c≠y_i} ‖f_i - M_c‖²]₊.

    The memory starts as the class means of the training features, in evaluation mode, and learns
    by the centroid loss alone (`_memory_gradient`); in the logits it is a constant. Examples are
    drawn with every class alike. The metrics' loss is the cross-entropy.

    Not part of this: the modulated attention of section 3.2 and the rejection of open classes.

    Args:
        model: the network; its variables after stage 1 go to `init`.
        optimizer: of the trained parameters. In the authors' program the head learns 10 to 100
            times as fast as the backbone.
        memory_optimizer: of M; SGD of rate 0.01 (over 10 every 10 or 20 epochs), momentum 0.9 and
            weight decay 5e-4 in the authors' program.
        num_classes: K.
        centroid_weight: λ, factor of the centroid loss.
        hallucinator_from_head: start W_h as the given head, which must be affine, as the authors'
            program does; otherwise at random.
        trainable, batch_norm, axis_name: as of `Part`; the new head is trained too where
            `trainable` matches it, and the memory apart.

    Raises:
        ValueError: `centroid_weight` is negative or not finite; from `init`, the training inputs
            are missing, or as `check_data`.
    """
    check_number("oltr", "centroid_weight", centroid_weight, least=0)
    features = evaluated_features(model)
    with_memory = model._replace(logits=head_logits)
    part = Part(with_memory, optimizer, trainable, batch_norm, axis_name)

    def init(key, variables, data):
        check_data(model, variables, data, num_classes)
        if data.train.inputs is None:
            raise ValueError(
                "oltr: the memory starts as the class means of the training features; give "
                "data.train.inputs."
            )
        z = features(variables, data.train)
        dtype = jnp.promote_types(z.dtype, jnp.float32)
        head = _new_head(key, z.shape[-1], num_classes, dtype)
        memory = _class_means(z, jnp.asarray(data.train.labels), num_classes)
        if hallucinator_from_head:
            given = partial(model.logits, variables["params"]["head"])
            head["hallucinator"] = _affine(given, z.shape[-1], num_classes, dtype)
        head["memory"] = None
        variables = {**variables, "params": {**variables["params"], "head": head}}
        opt_state = memory_optimizer.init(memory)
        state = part.start(None, variables, OLTRState, memory_opt_state=opt_state)
        return state.replace(variables=_with_memory(variables, memory))

    def step(state, batch, meta):
        del meta
        memory = state.variables["params"]["head"]["memory"]
        without = _with_memory(state.variables, None)
        trained, rest = part.split(without)
        rest = _with_memory(rest, memory)
        labels = batch.labels
        known = is_class(labels, memory.shape[0])
        size = jnp.maximum(part.summed(jnp.sum(known, dtype=jnp.float32)), 1)

        def objective(trained):
            losses, (z, logits, after) = part.losses(cross_entropy, batch, trained, rest)
            own, others = _squared_distances(z, memory, labels)
            sums = jax.lax.stop_gradient((jnp.sum(own), jnp.sum(others)))
            own_mean, others_mean = (x / size for x in part.summed(sums))
            short = jnp.maximum(MARGIN - others_mean, 0.0)
            # The slope of [10 - mean]₊ example by example: the mean is that of all devices.
            centroid = own / 2 - jnp.where(short > 0, REPULSION * others, 0.0)
            value = own_mean / 2 + REPULSION * short
            total = jnp.sum(losses + centroid_weight * centroid)
            return total, (after, z, losses, logits, value, short > 0)

        gradient, aux = jax.grad(objective, has_aux=True)(trained)
        after, z, losses, logits, value, repels = aux
        metrics = part.metrics(losses, logits, labels)
        metrics["centroid_loss"] = (value, jnp.ones(()))
        gradient = over_size(part.summed(gradient), size)
        state = part.descend(state.replace(variables=without), gradient, after)

        factor = jnp.where(repels, centroid_weight * REPULSION, 0.0)
        gradient = _memory_gradient(memory, z, labels, size, factor, axis_name)
        updates, memory_opt_state = memory_optimizer.update(
            gradient, state.memory_opt_state, memory
        )
        variables = _with_memory(state.variables, optax.apply_updates(memory, updates))
        return state.replace(variables=variables, memory_opt_state=memory_opt_state), metrics

    method = Method(init, step, logits=head_logits, reads_inputs=True)
    return sampled(method, class_power(num_classes, 0.0))


def head_logits(head: PyTree, z: Float[Array, "b d"]) -> Float[Array, "b k"]:
    """Logits of `oltr`'s head: `cosine_logits` of the `meta_embedding`."""
    return cosine_logits(head["classifier"]["kernel"], meta_embedding(head, z))


def meta_embedding(head: PyTree, z: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """γ_r (f + tanh(W_s f) ⊙ softmax(W_h f) M), γ_r = 10 / min_c ‖f - M_c‖ (section 3.1).

    No gradient goes to M. A distance under `CLOSEST` counts as that.

    Args:
        head: parameters, see `oltr`.
        z: features f.
    """
    memory = jax.lax.stop_gradient(head["memory"])
    weights = jax.nn.softmax(_dense(head["hallucinator"], z), axis=-1)
    selected = jnp.tanh(_dense(head["selector"], z)) * (weights @ memory)
    away = z - memory[_nearest(jax.lax.stop_gradient(z), memory)]
    return REACH / _norm(away, CLOSEST) * (z + selected)


def cosine_logits(kernel: Float[Array, "d k"], v: Float[Array, "b d"]) -> Float[Array, "b k"]:
    """16 v / (1 + ‖v‖) · w_c / ‖w_c‖, w_c the columns of the kernel.

    The length of v is squashed as in the authors' program.
    """
    return SCALE * (v / (1 + _norm(v))) @ (kernel.T / _norm(kernel.T)).T


def _with_memory(variables: PyTree, memory: Float[Array, "k d"] | None) -> PyTree:
    """Variables, or a part of them, with another memory in the head."""
    params = variables["params"]
    return {**variables, "params": {**params, "head": {**params["head"], "memory": memory}}}


def _memory_gradient(
    memory: Float[Array, "k d"],
    z: Float[Array, "b d"],
    labels: Int[Array, "b"],
    size: Float[Array, ""],
    factor: Float[Array, ""],
    axis_name: str | None,
) -> Float[Array, "k d"]:
    """What the memory's optimiser gets, as in the authors' program.

    Of the term that draws together, the rule of Wen et al., A Discriminative Feature Learning
    Approach for Deep Face Recognition, ECCV 2016, eq. 4, over the batch size B:
    Σ_{i: y_i=c} (M_c - f_i) / (1 + n_c) / B, n_c the batch's examples of the class. It has no
    factor λ. Of the term that pushes away the derivative, times `factor`.
    """
    k = memory.shape[0]
    ones = jnp.ones(labels.shape, z.dtype)
    sums = jax.ops.segment_sum(z, labels, k), jax.ops.segment_sum(ones, labels, k)
    features, counts = global_sum(sums, axis_name)
    counts = counts[:, None]
    attraction = (counts * memory - features) / (1 + counts) / size
    foreign = jnp.sum(features, axis=0, keepdims=True) - features
    repulsion = -2 * ((size - counts) * memory - foreign) / (size * k)
    return attraction + factor * repulsion


def _squared_distances(
    z: Float[Array, "b d"], memory: Float[Array, "k d"], labels: Int[Array, "b"]
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """‖f - M_y‖², and the sum of ‖f - M_c‖² over the other classes, divided by K."""
    known = is_class(labels, memory.shape[0])
    own = jnp.sum((z - of_class(memory, labels)) ** 2, axis=-1)
    # About the mean M̄ of the centroids: Σ_c ‖f - M_c‖² = K ‖f - M̄‖² + Σ_c ‖M_c - M̄‖².
    middle = jnp.mean(memory, axis=0, keepdims=True)
    spread = jnp.sum((memory - middle) ** 2)
    k = memory.shape[0]
    others = jnp.sum((z - middle) ** 2, axis=-1) + (spread - own) / k
    return jnp.where(known, own, 0), jnp.where(known, others, 0)


def _nearest(z: Float[Array, "b d"], memory: Float[Array, "k d"]) -> Int[Array, "b"]:
    """The class of the nearest centroid, without an array `[b, K, d]`."""
    middle = jnp.mean(memory, axis=0, keepdims=True)
    centred = memory - middle
    products = jnp.matmul(z - middle, centred.T, precision="highest")
    return jnp.argmin(jnp.sum(centred**2, axis=-1)[None, :] - 2 * products, axis=-1)


def _norm(x: Float[Array, "n d"], least: float = 1e-15) -> Float[Array, "n 1"]:
    """Euclidean length of each row, at least `least`; where it is less the slope is 0."""
    return jnp.sqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), least**2))


def _dense(layer: PyTree, z: Float[Array, "b d"]) -> Float[Array, "b n"]:
    return z @ layer["kernel"] + layer["bias"][None, :]


def _class_means(
    z: Float[Array, "n d"], labels: Int[Array, "n"], num_classes: int
) -> Float[Array, "k d"]:
    """Mean features of each class; zero of a class without examples."""
    sums = jax.ops.segment_sum(wide(z), labels, num_classes)
    counts = jnp.bincount(labels, length=num_classes).astype(sums.dtype)
    return sums / jnp.maximum(counts, 1)[:, None]


def _new_head(key: Array, d: int, k: int, dtype: DTypeLike) -> dict:
    """Uniform within ± 1/√d, biases too, as in the authors' program; without the memory."""

    def uniform(key, shape):
        return jax.random.uniform(key, shape, dtype, minval=-(d**-0.5), maxval=d**-0.5)

    keys = jax.random.split(key, 5)
    return {
        "hallucinator": {"kernel": uniform(keys[0], (d, k)), "bias": uniform(keys[1], (k,))},
        "selector": {"kernel": uniform(keys[2], (d, d)), "bias": uniform(keys[3], (d,))},
        "classifier": {"kernel": uniform(keys[4], (d, k))},
    }


def _affine(logits, d: int, num_classes: int, dtype: DTypeLike) -> dict:
    """Kernel and bias of a head that is an affine function."""
    with jax.default_matmul_precision("highest"):
        bias = logits(jnp.zeros((1, d), dtype))
        kernel = logits(jnp.eye(d, dtype=dtype)) - bias
    if kernel.shape[1] != num_classes:
        raise ValueError(
            f"oltr: the given head has {kernel.shape[1]} outputs and num_classes is "
            f"{num_classes}; they must be the same, or take hallucinator_from_head=False."
        )
    return {"kernel": kernel, "bias": bias[0]}
