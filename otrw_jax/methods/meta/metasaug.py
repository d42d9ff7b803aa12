"""MetaSAug: implicit semantic augmentation with meta-learned covariances (Li et al. 2021)."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int, PyTree

from otrw_jax.checks import check_finite, check_number
from otrw_jax.classes import of_class
from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import Method, check_data, global_sum
from otrw_jax.methods.meta.meta_loss import check_rates, meta_batch_of, require_meta_set
from otrw_jax.methods.part import Part, TrainState, at_step
from otrw_jax.methods.virtual_step import hypergradient, virtual_step
from otrw_jax.models.heads import kernel_of
from otrw_jax.models.model import Model


@flax.struct.dataclass
class ClassMoments:
    """Running moments of the features of each class, over all examples seen.

    Attributes:
        counts: examples seen of each class.
        means: of their features.
        covariances: of their features, divided by the counts; `[k d d]`, or the diagonals `[k d]`.
    """

    counts: Float[Array, "k"]
    means: Float[Array, "k d"]
    covariances: Float[Array, "k d ..."]


@flax.struct.dataclass
class MetaSAugState(TrainState):
    """State of `metasaug`.

    Attributes:
        moments: of the features since `start`.
    """

    moments: ClassMoments


def metasaug(
    model: Model,
    optimizer: optax.GradientTransformation,
    class_weights: Float[Array | np.ndarray, "k"],
    total_steps: int,
    *,
    virtual_learning_rate: float | optax.Schedule,
    loss: PerExampleLoss = cross_entropy,
    first_loss: PerExampleLoss = cross_entropy,
    start: int = 0,
    strength: float = 0.25,
    covariance_learning_rate: float = 0.1,
    meta_batch: int = 100,
    covariance: Literal["full", "diagonal"] = "full",
    divide_by_weights: bool = True,
    keep_meta_step: bool = False,
    class_vectors: Callable[[PyTree], Float[Array, "d k"]] = kernel_of,
    trainable: str = ".*",
    batch_norm: bool = True,
    axis_name: str | None = None,
) -> Method:
    """Augments features along directions of their class's covariance, in closed form.

    Li et al., MetaSAug, CVPR 2021; the implicit augmentation is that of Wang et al., Implicit
    Semantic Data Augmentation, NeurIPS 2019. Up to step `start` the batch's mean `first_loss` is
    minimised. From then on the loss of an example is its class's weight times `loss` of the
    `augmented_logits`, and a step, on a batch, (a) takes a virtual step of the network on it with
    the running covariances Σ; (b) takes a step of Σ on the cross-entropy of meta examples after
    the virtual step; (c) takes the real step with the new Σ; (d) adds the batch's features to the
    running moments. The network's pass of (a) serves (c) and (d) too.

    The authors train with the cross-entropy for 160 of 200 epochs, and with the method from then
    on at a hundredth of the learning rate. λ is λ0 t / T with t the steps taken and T all steps;
    in the authors' program it grows from epoch to epoch.

    Args:
        model: the network, with a linear last layer.
        optimizer: of the network.
        class_weights: factor of each class, `[K]`; `effective_number_weights` in the paper.
        total_steps: T.
        virtual_learning_rate: of (a), or a schedule of the step's number; in the authors' program
            the present learning rate of the network.
        loss: on augmented logits: cross-entropy, focal, or `ldam` with scale 1, as the paper's
            variant with margins only subtracts them.
        first_loss: before `start`.
        start: step from which the method is used.
        strength: λ0; the paper's choices are 0.25, 0.5, 0.75 and 1.
        covariance_learning_rate: of (b).
        meta_batch: the most meta examples a step; from a larger meta set they are drawn.
        covariance: the authors take full matrices for CIFAR and diagonals for larger data sets.
        divide_by_weights: divides the weighted sum of the batch's losses by the sum of its weights,
            as in the authors' program; by the batch size otherwise.
        keep_meta_step: whether the running covariances go on from what (b) gives. In the authors'
            program (b) serves the step it is taken in, and the estimate goes on without it.
        class_vectors: the last layer's class vectors, from the parameters of the head.
        trainable, batch_norm, axis_name: as of `Part`. The moments are those of the whole batch,
            and every device takes the same step of Σ.

    Raises:
        ValueError: a number is out of its range or not finite; from `init`, no meta set, class
            weights that are not `[K]`, or as `check_data`; `covariance` is neither of the two.
    """
    check_number("metasaug", "total_steps", total_steps, least=1)
    check_number("metasaug", "start", start, least=0)
    check_number("metasaug", "strength", strength, least=0)
    check_number("metasaug", "covariance_learning_rate", covariance_learning_rate, least=0)
    check_rates("metasaug", meta_batch, virtual_learning_rate)
    check_finite("metasaug", "class_weights", class_weights)
    class_weights = jnp.asarray(class_weights, jnp.float32)
    part = Part(model, optimizer, trainable, batch_norm, axis_name)

    def init(key, variables, data):
        check_data(model, variables, data)
        require_meta_set("metasaug", data)
        vectors = class_vectors(variables["params"]["head"])
        dim, num_classes = vectors.shape
        if class_weights.shape != (num_classes,):
            raise ValueError(
                f"metasaug: class_weights has the shape {class_weights.shape}; give one weight for "
                f"each of the {num_classes} classes."
            )
        moments = no_moments(num_classes, dim, covariance, vectors.dtype)
        return part.start(key, variables, MetaSAugState, moments=moments)

    def step(state, batch, meta):
        trained, rest = part.split(state.variables)
        labels = batch.labels

        def network(trained):
            z, logits, after = part.outputs(trained, rest, batch.inputs)
            head = part.join(trained, rest)["params"]["head"]
            return (logits, class_vectors(head)), (z, after)

        outputs, pullback, (z, after) = jax.vjp(network, trained, has_aux=True)
        logits = outputs[0]
        metrics = part.metrics(cross_entropy(logits, labels), logits, labels)
        size = metrics["loss"][1]

        def first_objective(outputs):
            return jnp.sum(first_loss(outputs[0], labels)) / size

        factors = of_class(class_weights, labels)
        total = part.summed(jnp.sum(factors)) if divide_by_weights else size
        scale = strength * state.step.astype(jnp.float32) / total_steps

        def objective(outputs, covariances):
            augmented = augmented_logits(*outputs, covariances, labels, scale)
            return jnp.sum(factors * loss(augmented, labels)) / total

        def gradient_of(objective, *more):
            """Of the trained parameters, from an objective's gradient in the network's outputs."""
            return part.summed(pullback(jax.grad(objective)(outputs, *more))[0])

        def before_start():
            return gradient_of(first_objective), state.moments

        def from_start():
            moments, rate = state.moments, at_step(virtual_learning_rate, state.step)
            virtual = virtual_step(trained, gradient_of(objective, moments.covariances), rate)
            examples = meta_batch_of(meta, meta_batch, state.key, state.step)
            direction = part.mean_gradient(cross_entropy, examples, virtual, rest)
            # Of the network the covariances see what it puts out: the hypergradient of the last
            # part of the objective, along the change of the outputs, is that of the whole.
            change = jax.jvp(network, (trained,), (direction,), has_aux=True)[1]
            slope = hypergradient(objective, outputs, moments.covariances, change, rate)
            learned = moments.covariances - covariance_learning_rate * part.summed(slope)
            if keep_meta_step:
                moments = moments.replace(covariances=learned)
            moments = add_batch(moments, z, labels, axis_name)
            return gradient_of(objective, learned), moments

        gradient, moments = jax.lax.cond(state.step < start, before_start, from_start)
        state = part.descend(state, gradient, after)
        return state.replace(moments=moments), metrics

    return Method(init, step)


def augmented_logits(
    logits: Float[Array, "b k"],
    class_vectors: Float[Array, "d k"],
    covariances: Float[Array, "k d ..."],
    labels: Int[Array, "b"],
    scale: Float[Array, ""] | float,
) -> Float[Array, "b k"]:
    """Logits whose cross-entropy bounds that of features augmented infinitely often.

    z_j + λ/2 (W_j - W_y)ᵀ Σ_y (W_j - W_y): features with noise N(0, λ Σ_y) have an expected
    cross-entropy of at most this one's. Wang et al., NeurIPS 2019, proposition 1.

    Args:
        logits: z.
        class_vectors: W.
        covariances: Σ of each class, matrices `[k d d]` or diagonals `[k d]`.
        labels: y.
        scale: λ.
    """
    vectors, covariances = class_vectors.T, covariances[labels]
    own = vectors[labels]
    if covariances.ndim == 2:
        # Multiplied out, as there are b k d differences; exactly, as the terms cancel.
        spread = (
            jnp.matmul(covariances, vectors.T**2, precision="highest")
            - 2 * jnp.matmul(covariances * own, vectors.T, precision="highest")
            + jnp.sum(covariances * own**2, axis=1, keepdims=True)
        )
    else:
        differences = vectors[None, :, :] - own[:, None, :]
        spread = jnp.einsum("bkd,bde,bke->bk", differences, covariances, differences)
    return logits + 0.5 * scale * spread


def no_moments(
    num_classes: int,
    dim: int,
    covariance: Literal["full", "diagonal"] = "full",
    dtype: DTypeLike = jnp.float32,
) -> ClassMoments:
    """Moments before any example: all are 0, in `dtype`, or in float32 where that is wider.

    Raises:
        ValueError: another `covariance`.
    """
    if covariance not in ("full", "diagonal"):
        raise ValueError(f"covariance is {covariance!r}; it must be 'full' or 'diagonal'.")
    shape = (num_classes, dim, dim) if covariance == "full" else (num_classes, dim)
    zeros = partial(jnp.zeros, dtype=jnp.promote_types(dtype, jnp.float32))
    return ClassMoments(zeros(num_classes), zeros((num_classes, dim)), zeros(shape))


def add_batch(
    moments: ClassMoments,
    features: Float[Array, "b d"],
    labels: Int[Array, "b"],
    axis_name: str | None = None,
) -> ClassMoments:
    """Moments with a batch added, those of all examples so far.

    With m examples of a class in the batch, n before, and r = m / (m + n),
    Σ ← (1-r) Σ + r Σ_batch + r (1-r) δ δᵀ, δ the difference of the means, as in the
    appendix of Wang et al., NeurIPS 2019. A class without examples in the batch stays as it is.

    Args:
        moments: before.
        features: of the batch.
        labels: its classes.
        axis_name: mapped axis over which the batch is spread.
    """

    def class_sums(x):
        sums = jax.ops.segment_sum(x, labels, moments.counts.shape[0])
        return global_sum(sums, axis_name)

    def squares(x):
        return x**2 if moments.covariances.ndim == 2 else x[:, :, None] * x[:, None, :]

    def of_class(x):
        return x.reshape(-1, *[1] * (moments.covariances.ndim - 1))

    added = class_sums(jnp.ones_like(features[:, 0]))
    present = jnp.maximum(added, 1)
    counts = moments.counts + added
    share = added / jnp.maximum(counts, 1)
    means = class_sums(features) / present[:, None]
    covariances = class_sums(squares(features - means[labels])) / of_class(present)
    between = of_class(share * (1 - share)) * squares(means - moments.means)
    share_means, share = share[:, None], of_class(share)
    return ClassMoments(
        counts=counts,
        means=(1 - share_means) * moments.means + share_means * means,
        covariances=(1 - share) * moments.covariances + share * covariances + between,
    )
