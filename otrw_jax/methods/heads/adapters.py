"""Maps over the logits of a trained head, learned while the network is left as it is."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Real

from otrw_jax.checks import check_counts, check_number
from otrw_jax.methods.base import Method
from otrw_jax.models.heads import kernel_of
from otrw_jax.models.model import Model

# Where the head's own parameters go, if they are no dict that takes the adapter's.
_GIVEN = "given"


class Adapter(NamedTuple):
    """A map over the logits of a trained head.

    Attributes:
        parameters: `(d, K) -> {name: array}`, where its parameters start; they are added to those
            of the head.
        logits: `(parameters, z [b d], logits [b k]) -> [b k]`, of the features and of what the
            head makes of them.
    """

    parameters: Callable[[int, int], dict[str, Array]]
    logits: Callable[
        [dict[str, Array], Float[Array, "b d"], Float[Array, "b k"]], Float[Array, "b k"]
    ]


def lws() -> Adapter:
    """Learnable weight scaling: each class's logit times a learned scale, which starts at 1.

    Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020,
    section 4. As in the authors' program the scale multiplies the whole logit, bias included.
    """

    def parameters(d, k):
        del d
        return {"scale": jnp.ones((k,))}

    def logits(parameters, z, logits):
        del z
        return parameters["scale"][None, :] * logits

    return Adapter(parameters, logits)


def disalign(scale: float = 1.0) -> Adapter:
    """Adaptive calibration: σ(v'f + c) (s ⊙ z + b) + (1 - σ(v'f + c)) z, of features f, logits z.

    Zhang et al., Distribution Alignment: A Unified Framework for Long-Tail Visual Recognition,
    CVPR 2021, eqs. 4-6. s starts at `scale`, b at 0, the confidence's v at 0.1 in every entry, as
    in the authors' program, and c at 0. With `scale` 1 the map starts as the identity. The program
    writes 1 + s for s and starts that at 2: the logits of the trained head, times a factor between
    1 and 2 that differs by example. A weight decay draws its s to 1, and the s here to 0.

    Args:
        scale: where s starts.

    Raises:
        ValueError: `scale` is not finite.
    """
    check_number("disalign", "scale", scale)

    def parameters(d, k):
        return {
            "scale": jnp.full((k,), scale, jnp.float32),
            "bias": jnp.zeros((k,)),
            "confidence_kernel": jnp.full((d,), 0.1),
            "confidence_bias": jnp.zeros(()),
        }

    def logits(parameters, z, logits):
        confidence = z @ parameters["confidence_kernel"] + parameters["confidence_bias"]
        confidence = jax.nn.sigmoid(confidence)[:, None]
        aligned = parameters["scale"][None, :] * logits + parameters["bias"][None, :]
        return confidence * aligned + (1 - confidence) * logits

    return Adapter(parameters, logits)


def disalign_weights(counts: Real[Array | np.ndarray, "k"], rho: float = 1.2) -> Float[Array, "k"]:
    """Class weights in proportion to (1 / π_c)^ρ, π the class frequencies.

    The generalised re-weighting of Zhang et al., CVPR 2021, with which DisAlign is trained. Scaled
    so that they sum to K, as in the authors' program; a class without examples has weight 0, and
    the others share the K.

    Args:
        counts: training examples of each class, `[K]`, or their proportions.
        rho: ρ; 0 weights all classes alike, 1 by the inverse frequency. 1.2 is the authors' for
            ImageNet-LT.

    Raises:
        ValueError: a count is negative or not finite, or all are 0; ρ is not finite.
    """
    check_number("disalign_weights", "rho", rho)
    counts = np.asarray(counts, np.float64)
    check_counts("disalign_weights", counts)
    powers = np.where(counts > 0, np.where(counts > 0, counts, 1) ** -rho, 0.0)
    return jnp.asarray(powers * (counts.size / powers.sum()), jnp.float32)


def adapted(
    model: Model,
    adapter: Adapter,
    make_method: Callable[[Model, str], Method],
    *,
    with_head: bool = False,
) -> Method:
    """A method that trains an adapter in place of the network.

    `adapted(model, lws(), lambda model, trainable: erm(model, optimizer, trainable=trainable,
    batch_norm=False))` is LWS. `init` adds the adapter's parameters to those of the head, at
    `"head/<name>"`; parameters of the head that are no dict go to `"head/given"`. `Method.logits`
    reads such a head.

    Args:
        model: the network; its head is of one layer, and its trained variables go to `init`.
        adapter: the map over its logits.
        make_method: from the network with the adapter, and a pattern of what is trained (as in
            `split_params`), to a method.
        with_head: whether the head's own parameters are trained too, as the program of MiSLAS
            (Zhong et al., CVPR 2021) does with LWS.

    Raises:
        ValueError: from `init`, the head has parameters of the adapter's names already, or not
            exactly one kernel.
    """
    names = tuple(adapter.parameters(1, 1))

    def logits(head, z):
        own = {name: leaf for name, leaf in head.items() if name not in names}
        own = own.get(_GIVEN, own)
        return adapter.logits({name: head[name] for name in names}, z, model.logits(own, z))

    trainable = "head/.*" if with_head else f"head/({'|'.join(names)})"
    method = make_method(model._replace(logits=logits), trainable)

    def init(key, variables, data):
        params = variables["params"]
        given = params["head"]
        head = given if isinstance(given, dict) else {}
        if taken := sorted({*names, _GIVEN} & head.keys()):
            raise ValueError(
                f"adapted: the head has {taken} already; start from a network without an adapter."
            )
        own = head or {_GIVEN: given}
        kernel = kernel_of(given)
        dtype = jnp.promote_types(kernel.dtype, jnp.float32)
        added = {name: x.astype(dtype) for name, x in adapter.parameters(*kernel.shape).items()}
        head = {**own, **added}
        return method.init(key, {**variables, "params": {**params, "head": head}}, data)

    return method._replace(init=init, logits=logits)
