"""An exponential moving average of the network, kept beside any method's training."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.checks import check_number
from otrw_jax.methods.base import Method


@flax.struct.dataclass
class AveragedState:
    """The inner method's state, and the average `variables`, which are evaluated and passed on."""

    inner: Any
    variables: PyTree

    @property
    def step(self) -> Int[Array, ""]:
        """Steps taken."""
        return self.inner.step


def averaged(method: Method, decay: float) -> Method:
    """Keeps the average of parameters and batch statistics over the steps of a method.

    After step t the average moves by 1 - min(decay, (1 + t) / (10 + t)) towards the network, so
    that it does not hang on to the start. Polyak and Juditsky, SIAM J. Control Optim. 1992.

    Args:
        method: what trains; its state's `variables` are averaged.
        decay: share of the average that stays at each step, in [0, 1).

    Raises:
        ValueError: the decay is outside [0, 1).
    """
    check_number("averaged", "decay", decay, least=0, below=1)

    def init(key, variables, data):
        inner = method.init(key, variables, data)
        return AveragedState(inner, jax.tree.map(jnp.copy, inner.variables))

    def step(state, batch, meta):
        inner, metrics = method.step(state.inner, batch, meta)
        t = inner.step.astype(jnp.float32)
        share = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
        average = jax.tree.map(
            lambda new, old: _moved(new, old, share), inner.variables, state.variables
        )
        return AveragedState(inner, average), metrics

    def refresh(state, data):
        return state.replace(inner=method.refresh(state.inner, data))

    def sampling(state, labels):
        return method.sampling(state.inner, labels)

    def weights(state, read, batch_size):
        """Of the network that is evaluated: the average."""
        return method.weights(state.inner.replace(variables=state.variables), read, batch_size)

    return method._replace(
        init=init,
        step=step,
        refresh=method.refresh and refresh,
        sampling=method.sampling and sampling,
        weights=method.weights and weights,
    )


def _moved(new: Array, old: Array, share: Float[Array, ""]) -> Array:
    """The old value, moved by a share towards the new one; a count or a key is the new one."""
    moves = jnp.issubdtype(new.dtype, jnp.inexact)
    return optax.incremental_update(new, old, share.astype(old.dtype)) if moves else new
