"""What `fit` returns: a trained network, what was learned of the examples, and how it went."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree

from otrw_jax.checks import AnyArray

BATCH = 1000
"""Examples that a prediction passes through the network at a time."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A trained network.

    Attributes:
        variables: the network's, as of `Model`.
        weights: of the training examples in the order of the given arrays, `[N]`, as the last
            stage's method learned them; 0 for those that were split off as the meta set. None where
            it learns none.
        meta_rows: rows of the training arrays that were split off as the meta set.
        epoch: number of the epoch that the network is of, counted over all stages from one.
        history: a record an epoch: `number`, `stage`, `loss` and `train_error` (in percent), what
            the method says of its OT problems, and, where they were evaluated, the metrics of
            `summarise` on `test` and `held_out`, without those of a shot group without classes.
        apply: `(variables, inputs [b ...]) -> logits [b k]`, compiled.
        shape: of a stored input.
        correct: of the logits of a whole set, as of `Method`; None for none.
    """

    variables: PyTree
    weights: Float[np.ndarray, "N"] | None
    meta_rows: Int[np.ndarray, "m"]
    epoch: int
    history: list[dict]
    apply: Callable[[PyTree, Num[Array, "b ..."]], Float[Array, "b k"]]
    shape: tuple[int, ...]
    correct: Callable[[Float[Array, "n k"]], Float[Array, "n k"]] | None = None

    def logits(self, inputs: Num[AnyArray, "n ..."]) -> Float[Array, "n k"]:
        """Logits of stored inputs, like those that were trained on.

        Raises:
            ValueError: there is no input, or inputs have another shape.
        """
        inputs = jnp.asarray(inputs)
        if inputs.shape[1:] != self.shape or not inputs.shape[:1] or not len(inputs):
            raise ValueError(
                f"the inputs have shape {inputs.shape}; give one or more of shape {self.shape}, "
                "like those that were trained on."
            )
        parts = [
            self.apply(self.variables, inputs[at : at + BATCH])
            for at in range(0, len(inputs), BATCH)
        ]
        logits = jnp.concatenate(parts)
        return logits if self.correct is None else self.correct(logits)

    def probabilities(self, inputs: Num[AnyArray, "n ..."]) -> Float[Array, "n k"]:
        """The classes' probabilities; raises as `logits`."""
        return jax.nn.softmax(self.logits(inputs), axis=-1)

    def predict(self, inputs: Num[AnyArray, "n ..."]) -> Int[Array, "n"]:
        """The likeliest class of each input; raises as `logits`."""
        return jnp.argmax(self.logits(inputs), axis=-1)
