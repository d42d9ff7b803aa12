"""A method that trains nothing and writes down what every step is given."""

import flax.struct
import jax
import jax.numpy as jnp

from otrw_jax.methods.base import Examples, Method, TrainingData
from otrw_jax.training.stages import DeviceData

N, SIZE, EPOCHS = 23, 4, 4
STEPS = N // SIZE
KEY = jax.random.key(7)


@flax.struct.dataclass
class LogState:
    """Keeps what it was shown, step by step."""

    step: jax.Array
    ids: jax.Array
    inputs: jax.Array
    labels: jax.Array
    meta: jax.Array
    refreshed: jax.Array
    variables: jax.Array


def log_method(size=SIZE, capacity=EPOCHS * STEPS, weights=None, traces=None):
    """A Method that logs its batches; `traces` gets an entry each time a function is traced."""

    def init(key, variables, data):
        del key, data
        rows = jnp.full((capacity, size), -1)
        return LogState(
            step=jnp.zeros((), jnp.int32),
            ids=rows,
            inputs=jnp.zeros((capacity, size), jnp.float32),
            labels=rows,
            meta=jnp.zeros(()),
            refreshed=jnp.zeros((), jnp.int32),
            variables=variables,
        )

    def step(state, batch, meta):
        if traces is not None:
            traces.append("step")
        at = state.step
        state = state.replace(
            step=at + 1,
            ids=state.ids.at[at].set(batch.ids),
            inputs=state.inputs.at[at].set(batch.inputs),
            labels=state.labels.at[at].set(batch.labels),
            meta=jnp.sum(meta.inputs),
            variables=0.9 * state.variables + jnp.mean(batch.inputs),
        )
        count = jnp.full((), size, jnp.float32)
        return state, {
            "loss": (jnp.sum(batch.inputs), count),
            "error": (jnp.sum(batch.labels == 0, dtype=jnp.float32), count),
        }

    def refresh(state, data):
        return state.replace(
            refreshed=state.refreshed + 1, variables=state.variables + data.train.inputs[0]
        )

    def sampling(state, labels):
        if traces is not None:
            traces.append("sampling")
        return weights + 0 * state.step

    return Method(init, step, refresh, None if weights is None else sampling)


def prepare(keys, inputs):
    return inputs + jax.vmap(jax.random.uniform)(keys)


def make_data(n=N):
    inputs = jnp.arange(n, dtype=jnp.float32) * 10
    train = Examples(inputs, jnp.arange(n) % 3)
    meta = Examples(jnp.array([1.5, 2.5]), jnp.array([0, 1]))
    return DeviceData(train, TrainingData(train, meta, 3), meta)
