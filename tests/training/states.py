"""States that are saved, and whether they came back."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


@flax.struct.dataclass
class State:
    step: jax.Array
    key: jax.Array
    variables: dict
    opt_state: tuple


def make_state(seed=0, width=3):
    key = jax.random.key(seed)
    params = {
        "head": {
            "kernel": jax.random.normal(key, (width, 2)),
            "bias": jnp.arange(2, dtype=jnp.bfloat16),
        },
        "mask": jnp.array([True, False]),
    }
    optimizer = optax.sgd(optax.constant_schedule(0.1), momentum=0.9)
    return State(
        step=jnp.asarray(seed, jnp.int32),
        key=jax.random.split(key, 2),
        variables={"params": params, "image": jnp.arange(4, dtype=jnp.uint8), "state": {}},
        opt_state=optimizer.init(params["head"]),
    )


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def folders(directory):
    return sorted(path.name for path in directory.iterdir())
