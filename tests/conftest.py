"""Settings of every test: eight CPU devices, no silent broadcast between ranks, quick compilation.

Compilation is most of the tests' time, so XLA's CPU backend is told to optimise little; processes
that tests start inherit this.
"""

import os

import jax
import pytest

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rank_promotion():
    """Allows it, for what ott-jax does when its iterations are differentiated through."""
    with jax.numpy_rank_promotion("allow"):
        yield
