"""The weights of the whole training set in closed form, its rows spread over devices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from otrw_jax.methods.base import Examples, TrainingData, devices_on, everywhere
from otrw_jax.methods.ot.problem import OTReweighting, cost_of, measure_of
from otrw_jax.methods.ot.refresh import Features
from otrw_jax.methods.reading import in_chunks
from otrw_jax.ot.closed_form import optimal_weights_by_rows


def make_global_weights(
    features: Features, config: OTReweighting, num_classes: int
) -> Callable[[Any, TrainingData, str | None], Float[Array, "N"]]:
    """Compiles the optimum of the whole training set's regularised problem; keep the result.

    Args:
        features: of `make_features`.
        config: names the cost, the measure and its epsilon.
        num_classes: number of classes K.

    Returns:
        `(state, data, axis_name) -> weights [N]`, scaled to a mean of one, by the atoms that the
        state holds.
    """

    def closed_form(state, z, labels, mask, axis_name):
        """The optimal weights of this device's rows, with all others', for the measure of now."""
        meta = state.meta_features, state.meta_labels
        measure = measure_of(config, state.key, *meta, num_classes)

        def cost_of_rows(rows):
            return cost_of(config, None if z is None else z[rows], labels[rows], measure)

        return optimal_weights_by_rows(
            cost_of_rows,
            labels.shape[0],
            measure.weights,
            epsilon=config.ot.epsilon,
            mask=mask,
            axis_name=axis_name,
        )

    compiled = jax.jit(closed_form, static_argnames="axis_name")

    def global_weights(state, data, axis_name):
        train, mask = _own_rows(data.train, axis_name)
        z = None
        if config.uses_features:
            of_inputs = partial(features.evaluation, state.variables)
            z = in_chunks(of_inputs, train.inputs, compiled=axis_name is not None)
        own = compiled(state, z, train.labels, mask, axis_name)
        values = everywhere(own, axis_name)[: data.train.labels.shape[0]]
        return values * values.shape[0]

    return global_weights


def _own_rows(examples: Examples, axis_name: str | None) -> tuple[Examples, Float[Array, "n"]]:
    """This device's share of examples that all devices hold, padded, and a mask of the padding."""
    count = examples.labels.shape[0]
    share = -(-count // devices_on(axis_name))
    first = 0 if axis_name is None else share * jax.lax.axis_index(axis_name)
    ids = first + jnp.arange(share)
    rows = jnp.minimum(ids, count - 1)
    own = examples if axis_name is None else jax.tree.map(lambda x: x[rows], examples)
    return Examples(own.inputs, jnp.asarray(own.labels)), (ids < count).astype(jnp.float32)
