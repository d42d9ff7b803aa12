"""Last layers: features to logits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from otrw_jax.models.initializers import kaiming_normal
from otrw_jax.paths import named_leaves


class LinearHead(nn.Module):
    """An affine layer from features `[b d]` to logits `[b k]`.

    The weights start as kaiming normal, N(0, 2 / d), as in the program of LDAM (Cao et al.,
    NeurIPS 2019) and those built on it; the bias starts at zero.

    Attributes:
        num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, z: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return nn.Dense(self.num_classes, kernel_init=kaiming_normal)(z)


class TanhHead(nn.Module):
    """`LinearHead` with its logits through tanh, as the paper's network for texts has it (table 9).

    Attributes:
        num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, z: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return jnp.tanh(nn.Dense(self.num_classes, kernel_init=kaiming_normal)(z))


class CosineHead(nn.Module):
    """Cosines of features `[b d]` and class vectors, `[b k]`, in [-1, 1]: no scale and no bias.

    The scale belongs to the loss (`ldam`). As in the program of LDAM (Cao et al., NeurIPS 2019)
    the class vectors start uniform in [-1, 1]^d, scaled to length one. A zero feature vector has
    cosine 0 with every class, and a zero gradient.

    Attributes:
        num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, z: Float[Array, "b d"]) -> Float[Array, "b k"]:
        kernel = self.param("kernel", _unit_uniform, (z.shape[-1], self.num_classes))
        return unit(z, axis=-1) @ unit(kernel, axis=0)


def unit(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Scales vectors along an axis to length one; zero vectors stay zero, with a zero gradient.

    A vector that is not finite has entries that are not a number.
    """
    squared = jnp.sum(x**2, axis=axis, keepdims=True)
    zero = squared == 0
    return jnp.where(zero, 0.0, x / jnp.sqrt(jnp.where(zero, 1.0, squared)))


def kernel_of(head: PyTree) -> Float[Array, "d k"]:
    """The class vectors, as columns, in the parameters of a head of one layer.

    They are the leaf named `kernel`, as flax names it; where none is, the only matrix, whose rows
    are the class vectors if it is named `weight`, as in Equinox.

    Args:
        head: parameters of the head, any pytree.

    Raises:
        ValueError: there is not exactly one.
    """
    leaves = named_leaves(head)
    # An NNX variable has its array in an attribute of its own.
    of_layer = {path: path.removesuffix("/value").split("/")[-1] for path in leaves}
    kernels = [path for path in leaves if of_layer[path] == "kernel"]
    kernels = kernels or [path for path, x in leaves.items() if jnp.ndim(x) == 2]
    if len(kernels) != 1:
        raise ValueError(
            f"the head has {len(kernels)} kernels among {list(leaves)}; this is for a head of one "
            "layer, such as LinearHead."
        )
    (path,) = kernels
    return leaves[path].T if of_layer[path] == "weight" else leaves[path]


def _unit_uniform(key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "d k"]:
    return unit(jax.random.uniform(key, shape, jnp.float32, minval=-1.0, maxval=1.0), axis=0)
