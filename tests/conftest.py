"""Settings of every test: eight CPU devices, and no silent broadcast between ranks."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rank_promotion():
    """Allows it, for what ott-jax does when its iterations are differentiated through."""
    with jax.numpy_rank_promotion("allow"):
        yield
