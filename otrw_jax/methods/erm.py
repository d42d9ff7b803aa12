"""Empirical risk minimisation: any per-example loss and weighting, and part of the parameters."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.checks import check_finite, check_number
from otrw_jax.classes import class_ids, is_class, of_class
from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import Method, check_data, over_size
from otrw_jax.methods.part import Part, add_cross_entropy, at_step
from otrw_jax.models.model import Model

ClassWeights = Float[Array, "k"] | Callable[[Int[Array, ""]], Float[Array, "k"]]
"""Weights of the classes, or a function of the step that gives them."""

Factor = Callable[
    [Int[Array, ""], Float[Array, "b d"], Float[Array, "b k"], Int[Array, "b"]], Float[Array, "b"]
]
"""`(step, z [b d], logits [b k], labels [b]) -> [b]`, which multiplies each example's loss."""


def erm(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    loss: PerExampleLoss = cross_entropy,
    class_weights: ClassWeights | None = None,
    divide_by_weights: bool = False,
    factor: Factor | None = None,
    meta_cross_entropy: float = 0.0,
    mixup: float = 0.0,
    trainable: str = ".*",
    batch_norm: bool = True,
    axis_name: str | None = None,
) -> Method:
    """Minimises `mean_i c_{y_i} loss_i` over batches: stage 1 of the paper, and its baselines.

    With `divide_by_weights` it is `Σ_i c_{y_i} loss_i / Σ_i c_{y_i}`.

    Args:
        model: the network.
        optimizer: any optax transformation. One that looks at further gradients of the same batch,
            such as `optax.contrib.sam(opaque_mode=True)`, finds them in `grad_fn`.
        loss: `(logits [b, k], labels [b]) -> [b]`.
        class_weights: factor of each class, `[k]`, or such a factor by the step (`deferred`). Ones
            by default.
        divide_by_weights: whether the weighted sum is divided by the batch's class weights, as
            PyTorch's weighted mean and so the programs of LDAM and DisAlign do, or by the batch
            size, as that of Cui et al. does.
        factor: a further factor of each example's loss, of its features and logits; the gradient
            goes through it.
        meta_cross_entropy: factor of the mean cross-entropy of the whole meta set in the objective.
        mixup: a of mixup (Zhang et al., mixup, ICLR 2018): examples are mixed with others of the
            batch, of this device's part of it where there are several, by one share drawn from
            Beta(a, a), and their losses by the same share; 0 for none.
        trainable, batch_norm, axis_name: as of `Part`.

    Raises:
        ValueError: `mixup` or `meta_cross_entropy` is negative or not finite, or class weights are
            not finite; from `init`, no meta set where its loss is wanted, or as `check_data`; from
            `step`, losses that are not one an example, or class weights that are not one a class.
    """
    check_number("erm", "mixup", mixup, least=0)
    check_number("erm", "meta_cross_entropy", meta_cross_entropy, least=0)
    check_finite("erm", "class_weights", class_weights)
    optimizer = optax.with_extra_args_support(optimizer)
    part = Part(model, optimizer, trainable, batch_norm, axis_name)

    def init(key, variables, data):
        check_data(model, variables, data)
        if meta_cross_entropy and data.meta is None:
            raise ValueError("erm: meta_cross_entropy needs a meta set; take meta_per_class >= 1.")
        return part.start(key, variables)

    def step(state, batch, meta):
        trained, rest = part.split(state.variables)
        inputs, parts = batch.inputs, [(1.0, batch.labels)]
        if mixup:
            key = jax.random.fold_in(state.key, state.step)
            inputs, parts = _mixed(key, batch.inputs, batch.labels, mixup)

        def objective(trained):
            z, logits, after = part.outputs(trained, rest, inputs)
            weighted = total = 0.0
            for share, labels in parts:
                losses = loss(logits, labels)
                _check_shape("loss", losses, labels.shape, "one number an example")
                # Padding is no part of the batch's size.
                weights = ones = is_class(labels, logits.shape[-1]).astype(losses.dtype)
                if class_weights is not None:
                    now = jnp.asarray(at_step(class_weights, state.step))
                    _check_shape("class_weights", now, logits.shape[-1:], "one a class")
                    weights = of_class(now, labels)
                total += share * jnp.sum(weights if divide_by_weights else ones)
                if factor is not None:
                    weights = weights * factor(state.step, z, logits, labels)
                weighted += share * jnp.sum(weights * losses)
            return weighted, (total, after, loss(logits, batch.labels), logits)

        def gradient_at(trained):
            gradient, (total, after, *aux) = jax.grad(objective, has_aux=True)(trained)
            total = part.summed(total)
            total = jnp.where(total > 0, total, 1)  # Of a batch of classes without weight.
            gradient = over_size(part.summed(gradient), total)
            if meta_cross_entropy:
                passed = {**rest, "state": after}
                gradient, after = add_cross_entropy(
                    part, meta_cross_entropy, gradient, trained, passed, meta
                )
            return gradient, (after, *aux)

        gradient, (after, losses, logits) = gradient_at(trained)
        metrics = part.metrics(losses, logits, batch.labels)
        again = {"grad_fn": lambda at, _: gradient_at(at)[0]}
        return part.descend(state, gradient, after, **again), metrics

    return Method(init, step)


def deferred(weights: Float[Array, "k"], start: int) -> ClassWeights:
    """Class weights from step `start` on, ones before: deferred re-weighting.

    Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS
    2019, Algorithm 1.

    Raises:
        ValueError: weights that are not finite, or a negative start.
    """
    check_finite("deferred", "weights", weights)
    check_number("deferred", "start", start, least=0)
    weights = jnp.asarray(weights)
    return lambda step: jnp.where(step >= start, weights, jnp.ones_like(weights))


def influence(alpha: float = 1000.0, floor: float = 1e-3, start: int = 0) -> Factor:
    """α / (‖p - e_y‖₁ ‖z‖₁ + floor) from step `start` on, one before: the inverse of an influence.

    Park et al., Influence-Balanced Loss for Imbalanced Visual Classification, ICCV 2021, eqs. 6
    and 7. The influence is that of the example on the last layer; as in the authors' program the
    gradient goes through it.

    Args:
        alpha: α; 1000 in the authors' program.
        floor: what keeps the factor finite.
        start: number of the first step.

    Raises:
        ValueError: `alpha` or `floor` is not positive, or `start` is negative.
    """
    check_number("influence", "alpha", alpha, above=0)
    check_number("influence", "floor", floor, above=0)
    check_number("influence", "start", start, least=0)

    def factor(step, z, logits, labels):
        ids = class_ids(labels, logits.shape[-1])
        mine = jax.nn.one_hot(ids, logits.shape[-1], dtype=logits.dtype)
        of_logits = jnp.sum(jnp.abs(jax.nn.softmax(logits) - mine), axis=-1)
        inverse = alpha / (of_logits * jnp.sum(jnp.abs(z), axis=-1) + floor)
        return jnp.where(step >= start, inverse, 1.0)

    return factor


def _check_shape(name: str, values: Array, shape: tuple[int, ...], meaning: str):
    if values.shape != shape:
        raise ValueError(f"erm: {name} has shape {values.shape}; it must be {shape}, {meaning}.")


def _mixed(key: Array, inputs: PyTree, labels: Int[Array, "b"], a: float):
    """Inputs mixed with those of other examples; each example's labels, with their shares."""
    share_key, order_key = jax.random.split(key)
    share = jax.random.beta(share_key, a, a, dtype=jnp.float32)
    other = jax.random.permutation(order_key, labels.shape[0])
    mixed = jax.tree.map(lambda x: share * x + (1 - share) * x[other], inputs)
    return mixed, [(share, labels), (1 - share, labels[other])]
