"""Gradients through one virtual step of the network, for whatever the step depends on.

With a training objective f(θ, h) that depends on something to be learned, h, the virtual step is
θ'(h) = θ - α ∂f/∂θ, and h descends the meta loss L(θ'(h)). By the chain rule

    dL/dh = -α ∂/∂h ⟨∂f/∂θ (θ, h), g⟩,    g = ∂L/∂θ (θ'),

and the inner product is the derivative of f along g: one forward-mode pass, differentiated in h.
No second copy of the network is written and no gradient is unrolled.
"""

from collections.abc import Callable

import jax
from jax import Array
from jaxtyping import Float, PyTree


def virtual_step(trained: PyTree, gradient: PyTree, rate: Float[Array, ""] | float) -> PyTree:
    """θ - α times the gradient."""
    return jax.tree.map(lambda p, g: p - rate * g, trained, gradient)


def hypergradient(
    objective: Callable[[PyTree, PyTree], Float[Array, ""]],
    trained: PyTree,
    hyper: PyTree,
    direction: PyTree,
    rate: Float[Array, ""] | float,
) -> PyTree:
    """Gradient in `hyper` of a meta loss after a virtual step of the network.

    Args:
        objective: `(trained, hyper) -> f`, what the virtual step descends.
        trained: θ, where the step starts.
        hyper: h.
        direction: gradient g of the meta loss at the end of the step, a tree like `trained`.
        rate: α of the step.

    Returns:
        dL/dh, a tree like `hyper`.
    """

    def along(hyper):
        return jax.jvp(lambda trained: objective(trained, hyper), (trained,), (direction,))[1]

    return jax.tree.map(lambda g: -rate * g, jax.grad(along)(hyper))
