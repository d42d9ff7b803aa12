"""Bilateral-branch networks: two branches learn from two samplings, and the weight moves over."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int, Real

from otrw_jax.checks import check_counts, check_number
from otrw_jax.classes import is_class
from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import Batch, Method, check_data, over_size
from otrw_jax.methods.part import Part
from otrw_jax.models.branches import has_branch, keep_branch
from otrw_jax.models.model import Model


def bbn(
    model: Model,
    optimizer: optax.GradientTransformation,
    counts: Real[Array | np.ndarray, "k"],
    total_steps: int,
    *,
    steps_per_epoch: int,
    loss: PerExampleLoss = cross_entropy,
    trainable: str = ".*",
    batch_norm: bool = True,
    axis_name: str | None = None,
) -> Method:
    """Trains a network of two branches, first on the data as they are, ever more on rare classes.

    Zhou et al., BBN: Bilateral-Branch Network with Cumulative Learning for Long-Tailed Visual
    Recognition, CVPR 2020, section 4. A step's batch has pairs of examples, one of each sampling
    in turn: (x_c, y_c), every example alike, at even places and (x_r, y_r), a class in proportion
    to n_max / n_c, at odd ones. With features f_c of the first branch and f_r of the second,

        logits = head([2 α f_c(x_c), 2 (1 - α) f_r(x_r)]),
        loss = mean of α loss(logits, y_c) + (1 - α) loss(logits, y_r),

    α by `conventional_share`. In evaluation both branches see the same example and the head reads
    their features as they are, which is the model itself.

    As in the authors' program the two halves go through the network one after the other: each
    takes batch moments of its own, the running statistics of the trunk move twice and those of a
    branch once, by the examples that the branch learns from.

    The metrics' loss is the mixed one, and their error that of either's labels by the same shares.

    Args:
        model: a network whose backbone has `branches=2`, or names the parts that its two branches
            do not share as `otrw_jax.models.branches` does; its features are those of the first
            branch and then as many of the second.
        optimizer: any optax transformation.
        counts: training examples of each class, `[K]`, or their proportions; a class without
            examples is never drawn.
        total_steps: T, in steps, at which α reaches 0: the length of the training. The authors'
            program takes that of 100 epochs where it trains for 90, and 200 where for 180.
        steps_per_epoch: how long α stays the same; 1 for an α that moves at every step.
        loss: `(logits [b, k], labels [b]) -> [b]`.
        trainable, batch_norm, axis_name: as of `Part`; each device has whole pairs.

    Raises:
        ValueError: `total_steps` or `steps_per_epoch` is less than 1, or the counts are not those
            of a training set; from `init`, the backbone has no second branch; from the step, the
            batch is not made of pairs.
    """
    check_number("bbn", "total_steps", total_steps, least=1)
    check_number("bbn", "steps_per_epoch", steps_per_epoch, least=1)
    counts = np.asarray(counts, np.float64)
    check_counts("bbn", counts)
    # Of an example: its class in proportion to 1 / n_c, and the examples of a class alike.
    of_class = (counts.max() / np.where(counts > 0, counts, 1)) / np.where(counts > 0, counts, 1)
    part = Part(model, optimizer, trainable, batch_norm, axis_name)

    def init(key, variables, data):
        del key
        check_data(model, variables, data, len(counts))
        if not has_branch(variables["params"]["backbone"], 1):
            raise ValueError(
                "bbn: no parameter of the backbone belongs to a second branch; take a backbone "
                "with branches=2."
            )
        return part.start(None, variables)

    def branch_features(variables, inputs, branch):
        """Features of one branch, with the other's running statistics left as they are."""
        z, after = model.features(variables, inputs, batch_norm)
        if batch_norm:
            after = keep_branch(variables["state"], after, 1 - branch)
        return jnp.split(z, 2, axis=-1)[branch], after

    def step(state, batch, meta):
        del meta
        trained, rest = part.split(state.variables)
        conventional, reversed_ = _apart(batch)
        alpha = conventional_share(state.step, total_steps, steps_per_epoch)

        def objective(trained):
            variables = part.join(trained, rest)
            f_c, after = branch_features(variables, conventional.inputs, 0)
            f_r, after = branch_features({**variables, "state": after}, reversed_.inputs, 1)
            z = jnp.concatenate([2 * alpha * f_c, 2 * (1 - alpha) * f_r], axis=-1)
            logits = model.logits(variables["params"]["head"], z)
            of_c, of_r = loss(logits, conventional.labels), loss(logits, reversed_.labels)
            losses = alpha * of_c + (1 - alpha) * of_r
            return jnp.sum(losses), (after, losses, logits)

        gradient, (after, losses, logits) = jax.grad(objective, has_aux=True)(trained)
        metrics = part.metrics(losses, logits, conventional.labels)
        of_r = part.metrics(losses, logits, reversed_.labels)["error"]
        wrong = alpha * metrics["error"][0] + (1 - alpha) * of_r[0]
        metrics["error"] = (wrong, of_r[1])
        size = metrics["loss"][1]
        gradient = over_size(part.summed(gradient), size)
        return part.descend(state, gradient, after), metrics

    def sampling(state, labels):
        del state
        known = is_class(labels, len(counts))
        reversed_ = jnp.where(known, jnp.asarray(of_class, jnp.float32)[labels], 0.0)
        return jnp.stack([known.astype(reversed_.dtype), reversed_])

    return Method(init, step, sampling=sampling)


def conventional_share(
    step: Int[Array, ""], total_steps: int, steps_per_epoch: int
) -> Float[Array, ""]:
    """α = 1 - (t / T)², t the steps before the present epoch and T all; 0 from T on.

    Args:
        step: steps taken.
        total_steps: T.
        steps_per_epoch: steps of an epoch, in which α stays the same.
    """
    before = step // steps_per_epoch * steps_per_epoch
    return jnp.maximum(1 - (before / total_steps) ** 2, 0.0)


def _apart(batch: Batch) -> tuple[Batch, Batch]:
    """The examples at even places, and those at odd ones."""
    if batch.labels.shape[0] % 2:
        raise ValueError(
            f"bbn: a batch has pairs of examples, one of each sampling; this one has "
            f"{batch.labels.shape[0]} examples."
        )
    return jax.tree.map(lambda x: x[0::2], batch), jax.tree.map(lambda x: x[1::2], batch)
