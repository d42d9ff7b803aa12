"""Nets that give the weights of a batch's examples (Guo et al. 2022, eqs. 11 and 13)."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from otrw_jax.checks import AnyArray

# Kernels uniform in ±1/√(inputs of the layer), as PyTorch's linear layers start.
_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class MLPWeightNet(nn.Module):
    """w = softmax(s), s_i = w_att tanh(W z_i + c): one hidden layer, example by example (eq. 11).

    The paper leaves the biases out "for convenience". The hidden layer has one here; that of the
    output would fall out of the softmax, which runs over the batch.

    Attributes:
        hidden: A, the width of the hidden layer; the paper names none.
    """

    hidden: int = 128

    @nn.compact
    def __call__(self, x: Float[AnyArray, "b d"]) -> Float[Array, "b"]:
        x = jnp.tanh(nn.Dense(self.hidden, kernel_init=_uniform)(x))
        scores = nn.Dense(1, use_bias=False, kernel_init=_uniform)(x)[:, 0]
        return jax.nn.softmax(scores)


class AttentionWeightNet(nn.Module):
    """Weights by the scores (W1 z_i) · (W2 z_j) / √d_l between the examples of a batch (eq. 13).

    The paper does not say how weights `[b]` come out of the matrix of scores `[b, b]` that its
    table 8 ends with, after a softmax of the same shape; eq. 13 itself has the diagonal of that
    matrix alone, one number an example. Both readings give weights on the simplex:

    - `"rows"`: the softmax of each row, as in self-attention and in table 8, averaged over the
      rows. An example's weight is the attention that the batch pays it.
    - `"diagonal"`: w = softmax over the batch of s_i = (W1 z_i) · (W2 z_i) / √d_l. An example's
      score does not depend on the others of the batch.

    Attributes:
        hidden: d_l, the width that both linear layers map to; 128 in table 8.
        pooling: which reading.

    Raises:
        ValueError: when called, an unknown reading.
    """

    hidden: int = 128
    pooling: Literal["rows", "diagonal"] = "rows"

    @nn.compact
    def __call__(self, x: Float[AnyArray, "b d"]) -> Float[Array, "b"]:
        if self.pooling not in ("rows", "diagonal"):
            raise ValueError(
                f"AttentionWeightNet.pooling is {self.pooling!r}; choose 'rows' or 'diagonal'."
            )
        queries = nn.Dense(self.hidden, kernel_init=_uniform)(x)
        keys = nn.Dense(self.hidden, kernel_init=_uniform)(x)
        scale = self.hidden**-0.5
        if self.pooling == "diagonal":
            return jax.nn.softmax(scale * jnp.sum(queries * keys, axis=-1))
        scores = scale * jnp.matmul(queries, keys.T)
        return jnp.mean(jax.nn.softmax(scores, axis=-1), axis=0)
