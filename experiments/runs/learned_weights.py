"""The weights that a run has learned for its training examples."""

import numpy as np
from jaxtyping import Float, PyTree

from experiments.runs.restoring import Restored
from otrw_jax.methods.base import Examples


def learned_weights(end: Restored) -> Float[np.ndarray, "n"] | None:
    """The weight of each training example by `Method.weights`, or None where none are learned."""
    method = end.stage.method
    if method.weights is None:
        return None

    def read(variables: PyTree) -> Examples:
        return end.program.read(variables, end.prepared.data.raw)

    return np.asarray(method.weights(end.state, read, end.stage.batch_size))
