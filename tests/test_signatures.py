"""What the signatures of the mathematics say is checked in the tests, whenever one is called."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from otrw_jax import cross_entropy, feature_cost, metrics, ot_loss

CALLS = {
    "an axis too many": lambda: cross_entropy(np.zeros((2, 3)), np.zeros((2, 1), int)),
    "sizes that differ": lambda: feature_cost(jnp.ones((4, 3)), jnp.ones((2, 5))),
    "weights of whole numbers": lambda: ot_loss(jnp.ones(2, int), jnp.ones((2, 2))),
    "a list": lambda: metrics.top1_error([[1, 0], [0, 1]]),
    "traced": lambda: jax.jit(cross_entropy)(jnp.zeros((2, 3)), jnp.zeros(2)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_a_signature_does_not_allow_fails(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()


def test_without_the_check_the_function_itself_answers(signatures_unchecked):
    with pytest.raises(ValueError, match="labels has shape"):
        CALLS["an axis too many"]()
