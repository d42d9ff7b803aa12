"""The weights that a run has learned for its training examples."""

import numpy as np
from jaxtyping import Float

from experiments.runs.restoring import Restored
from otrw_jax.methods.base import Examples


def learned_weights(end: Restored) -> Float[np.ndarray, "n"] | None:
    """The weight of each training example by `Method.weights`, or None where none are learned."""
    method, program, raw = end.stage.method, end.program, end.prepared.data.raw
    if method.weights is None:
        return None

    def train() -> Examples:
        """As the method's network is given it: features where these were kept."""
        if end.stage.feature_copies:
            return program.read(end.state.variables, raw)
        return Examples(program.preprocessing.evaluate(raw.inputs), raw.labels)

    return np.asarray(method.weights(end.state, train, end.stage.batch_size))
