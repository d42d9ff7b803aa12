"""The weights that a run has learned for its training examples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.recipes.transport import net_of
from experiments.runs.restoring import Restored
from otrw_jax.losses import cross_entropy
from otrw_jax.methods.ot.weight_net import OTWeightNetState, net_inputs
from otrw_jax.ot.weights import ExampleWeights

ORDERS = 10
"""Random orders of the training set over which the weights of a net are averaged."""


def trained_state(state: Any) -> Any:
    """The state of the method itself, within those of the methods around it."""
    while hasattr(state, "inner"):
        state = state.inner
    return state


def learned_weights(end: Restored) -> Float[np.ndarray, "n"] | None:
    """The weight of each training example, or None where none are learned.

    Weights that are kept are given as they are. Those of a weight net depend on the batch: each is
    the mean over `ORDERS` random orders, times the batch size, so that their mean is one.
    """
    state = trained_state(end.state)
    weights = getattr(state, "weights", None)
    if weights is not None:
        return np.asarray(weights.values if isinstance(weights, ExampleWeights) else weights)
    if not isinstance(state, OTWeightNetState):
        return None
    config = end.program.config
    options = config.options[config.recipe]
    # Features are of the network that is evaluated: the moving average, where there is one.
    net, model, labels = net_of(options), end.program.model, end.prepared.data.raw.labels
    variables, count = end.state.variables, len(end.prepared.split.train)
    z = end.program.read(variables, end.prepared.data.raw).inputs
    losses = cross_entropy(model.logits(variables["params"]["head"], z), labels)
    seen = net_inputs(options.net_input, z, labels, losses, end.program.num_classes)
    weigh = jax.jit(lambda x: net.apply({"params": state.net_params}, x))
    size = end.stage.batch_size
    rng, sums, times = np.random.default_rng(0), np.zeros(count), np.zeros(count)
    for _ in range(ORDERS):
        order = rng.permutation(count)
        for at in range(0, count - size + 1, size):
            ids = order[at : at + size]
            sums[ids] += size * np.asarray(weigh(jnp.asarray(seen)[ids]))
            times[ids] += 1
    return sums / np.maximum(times, 1)
