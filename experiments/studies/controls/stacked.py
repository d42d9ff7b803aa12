"""Methods whose cells differ in numbers alone, so that one program trains a stack of them."""

from typing import Any, NamedTuple

import flax.struct
from jax import Array
from jaxtyping import Float, PyTree

from otrw_jax import cross_entropy
from otrw_jax.methods.base import Method


@flax.struct.dataclass
class CellState:
    """A method's state, and the numbers in which cells of one program differ."""

    inner: Any
    class_weights: Float[Array, "k"]
    offset: Float[Array, "k"]

    @property
    def step(self):
        """Steps taken."""
        return self.inner.step

    @property
    def variables(self):
        """The network's."""
        return self.inner.variables


class Start(NamedTuple):
    """What a cell starts from: the network's variables, and its loss's numbers."""

    variables: PyTree
    class_weights: Float[Array, "k"]
    offset: Float[Array, "k"]


def with_numbers(make_method) -> Method:
    """The method `make_method(loss)` of the loss that a state's numbers give.

    The loss of an example of class y is its class weight times the cross-entropy of its logits
    plus the offset. Features are frozen, so what a refresh finds is what `init` found.
    """

    def bound(state):
        def loss(logits, labels):
            plain = cross_entropy(logits + state.offset[None, :], labels)
            return state.class_weights[labels] * plain

        return make_method(loss)

    plain = make_method(cross_entropy)

    def init(key, start, data):
        inner = plain.init(key, start.variables, data)
        return CellState(inner, start.class_weights, start.offset)

    def step(state, batch, meta):
        inner, metrics = bound(state).step(state.inner, batch, meta)
        return state.replace(inner=inner), metrics

    return Method(init, step, reads_inputs=plain.reads_inputs)
