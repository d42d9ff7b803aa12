"""Example weights of features that stay as they are, for any other program's training."""

import warnings
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Bool, Float, Int

from otrw_jax.checks import check_labels, check_number
from otrw_jax.methods.ot.problem import OTReweighting, cost_of, measure_of
from otrw_jax.ot import weights
from otrw_jax.ot.arrays import require_shapes
from otrw_jax.ot.closed_form import optimal_weights_by_rows
from otrw_jax.ot.entropic import EntropicOT, ot_loss_and_convergence
from otrw_jax.ot.measures import Measure, require_every_class

WeightsMethod = Literal["closed_form", "learned"]
Cost = Literal["combined", "feature", "label"]
Atoms = Literal["prototype", "whole"]
PLAIN_SGD = optax.sgd(0.01)


def example_weights(
    features: Float[Array | np.ndarray, "N d"],
    labels: Int[Array | np.ndarray, "N"],
    meta_features: Float[Array | np.ndarray, "m d"],
    meta_labels: Int[Array | np.ndarray, "m"],
    *,
    method: WeightsMethod = "closed_form",
    cost: Cost = "combined",
    measure: Atoms = "prototype",
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
    epsilon: float = 0.1,
    rows: int = 8192,
    optimizer: optax.GradientTransformation = PLAIN_SGD,
    epochs: int = 20,
    batch_size: int = 100,
    seed: int = 0,
) -> Float[Array, "N"]:
    """Weights of training examples by OT to a small balanced meta set, of features as they are.

    The weights have a mean of one: they are factors of the examples' losses, as scikit-learn's
    `sample_weight`; divided by N they are probabilities. Scaling `features` changes nothing in
    the cost, of cosines; moving or whitening them does.

    `method="closed_form"` minimises `<C, T> - epsilon H(T)` over the plan and all N weights
    together (`optimal_weights_by_rows`): exact, O(N m), in memory O(rows m) beside the features.

    `method="learned"` is step (b) of Algorithm 1 of Guo et al. 2022, where features do not move:
    each step draws a batch and takes a step of the optimiser on its OT loss, `<C, T>` of the
    entropic plan, its weights staying on the simplex of the batch. What it finds depends on the
    batches. Minimised on all N at once, the regularised loss has the closed form for its minimum.

    Args:
        features: of the training examples, float16, float32 or wider, or whole numbers.
        labels: their classes, in 0..K-1.
        meta_features: of the meta set.
        meta_labels: their classes, each of 0..K-1 at least once.
        method: see above.
        cost: eq. 9, 8 or 7.
        measure: one atom a class, the mean of its meta features (eq. 12), or every meta example
            (eq. 5).
        feature_weight: factor of the feature cost in the combined cost.
        label_weight: factor of the label cost in the combined cost.
        epsilon: entropic regularisation, in units of the cost.
        rows: of the cost, that are held at a time by the closed form.
        optimizer: of the learned weights; sees one example at a time.
        epochs: passes over the examples, for learned weights; what fills no batch waits for the
            next one.
        batch_size: examples of a step, for learned weights; at most N.
        seed: of the order of the examples, for learned weights.

    Returns:
        `[N]`, float32, not negative, of mean one.

    Raises:
        ValueError: shapes that do not fit, labels or choices that are none, classes without meta
            example, numbers that are not finite or out of their range.
    """
    where = "example_weights"
    if method not in get_args(WeightsMethod):
        raise ValueError(f"{where}: method is {method!r}; choose closed_form or learned.")
    if measure not in get_args(Atoms):
        raise ValueError(f"{where}: measure is {measure!r}; choose prototype or whole.")
    config = OTReweighting(
        cost=cost,
        measure=measure,
        feature_weight=feature_weight,
        label_weight=label_weight,
        ot=EntropicOT(epsilon=epsilon),
    )
    for name, number in {"rows": rows, "epochs": epochs, "batch_size": batch_size}.items():
        check_number(where, name, number, least=1, whole=True)
    arrays = {"features": features, "meta_features": meta_features}
    arrays = {name: _numbers(where, name, value) for name, value in arrays.items()}
    labels, meta_labels = np.asarray(labels), np.asarray(meta_labels)
    num_classes = _check_data(where, **arrays, labels=labels, meta_labels=meta_labels)
    # In float32 before they are averaged, whatever the training features have.
    atoms = arrays["meta_features"].astype(jnp.float32), jnp.asarray(meta_labels, jnp.int32)
    key = jax.random.key(seed)
    goal = measure_of(config, key, *atoms, num_classes)
    data = arrays["features"], jnp.asarray(labels, jnp.int32), goal
    if method == "closed_form":
        return _closed_form(*data, config, min(rows, len(labels)))
    size = min(batch_size, len(labels))
    found, converged = _learned(*data, key, config, optimizer, epochs, size)
    if not converged.all():
        warnings.warn(
            f"{where}: {converged.size - converged.sum()} of {converged.size} batches' OT problems "
            "did not converge; take a larger epsilon, or smaller steps.",
            RuntimeWarning,
            stacklevel=2,
        )
    return found


def _numbers(where: str, name: str, values) -> Array:
    """On the device, whole numbers in float32; those of another kind are refused."""
    values = values if hasattr(values, "dtype") else np.asarray(values)
    if jnp.issubdtype(values.dtype, jnp.integer):  # Those of 64 bits would wrap.
        return jnp.asarray(values, jnp.float32)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"{where}: {name} are {values.dtype}; give numbers.")
    return jnp.asarray(values)


def _check_data(where, features, labels, meta_features, meta_labels) -> int:
    """The number of classes."""
    require_shapes(
        where,
        features=(features, "N d"),
        labels=(labels, "N"),
        meta_features=(meta_features, "m d"),
        meta_labels=(meta_labels, "m"),
    )
    for name, values in {"labels": labels, "meta_labels": meta_labels}.items():
        if not len(values):
            raise ValueError(f"{where}: {name} are empty; give some examples.")
        if values.dtype.kind not in "iu":
            raise ValueError(
                f"{where}: {name} are {values.dtype}; give whole numbers (of names, "
                "np.unique(names, return_inverse=True)[1])."
            )
    num_classes = int(meta_labels.max()) + 1
    require_every_class(meta_labels, num_classes)
    check_labels(where, labels, num_classes)
    for name, array in {"features": features, "meta_features": meta_features}.items():
        finite = np.asarray(_finite_rows(array))
        if not finite.all():
            raise ValueError(
                f"{where}: {name} has {len(finite) - finite.sum()} rows that are not finite, the "
                f"first of them {int(np.argmin(finite))}; mend them, or leave them out."
            )
    return num_classes


@jax.jit
def _finite_rows(array):
    return jnp.isfinite(array).all(axis=1)


@partial(jax.jit, static_argnames=("config", "rows"))
def _closed_form(
    features: Float[Array, "N d"],
    labels: Int[Array, "N"],
    goal: Measure,
    config: OTReweighting,
    rows: int,
) -> Float[Array, "N"]:
    def cost_of_rows(ids):
        return cost_of(config, features[ids], labels[ids], goal)

    count = labels.shape[0]
    masses = optimal_weights_by_rows(
        cost_of_rows, count, goal.weights, epsilon=config.ot.epsilon, rows=rows
    )
    return count * masses


@partial(jax.jit, static_argnames=("config", "optimizer", "epochs", "size"))
def _learned(
    features: Float[Array, "N d"],
    labels: Int[Array, "N"],
    goal: Measure,
    key: Array,
    config: OTReweighting,
    optimizer: optax.GradientTransformation,
    epochs: int,
    size: int,
) -> tuple[Float[Array, "N"], Bool[Array, "epochs steps"]]:
    """The weights, and of each step whether its problem converged."""
    count = labels.shape[0]
    steps = count // size

    def step(state, ids):
        cost = cost_of(config, features[ids], labels[ids], goal)

        def objective(values):
            mass = weights.mass(values, config.simplex)
            return ot_loss_and_convergence(mass, cost, goal.weights, ot=config.ot)

        entries, (_, solved) = weights.update(
            weights.gather(state, ids), objective, optimizer, config.simplex, has_aux=True
        )
        return weights.scatter(state, ids, entries), solved.converged

    def epoch(state, key):
        order = jax.random.permutation(key, count)[: steps * size]
        return jax.lax.scan(step, state, order.reshape(steps, size))

    start = weights.init_weights(weights.uniform_weights(count), optimizer)
    state, solved = jax.lax.scan(epoch, start, jax.random.split(key, epochs))
    return state.values, solved
