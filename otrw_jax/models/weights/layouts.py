"""Where in what a training program has saved the tensors of its network lie."""

from typing import Any

from otrw_jax.models.weights.records import Refused, Tensor

PREFIX = "module."
"""What `torch.nn.DataParallel` puts before each name."""
NETWORK = ("state_dict_best", "state_dict", "model")
"""Names under which programs save the network beside other things, the first that is there."""


def state_dict(found: Any) -> dict[str, Tensor]:
    """The tensors of a network by name, without the prefix "module.".

    They may lie at the top, under one name of `NETWORK`, and there in parts, a dict each, as in the
    files of Kang et al. (ICLR 2020): `state_dict_best.{feat_model, classifier}`, whose names are
    put together. What is no tensor is left out.

    Args:
        found: what a file holds.

    Raises:
        Refused: there are no tensors by name, or two have the same.
    """
    if not isinstance(found, dict):
        raise Refused(f"it holds a {type(found).__name__}, not tensors by name.")
    name = next((name for name in NETWORK if isinstance(found.get(name), dict)), None)
    network = found if name is None else found[name]
    parts = [network, *(part for part in network.values() if isinstance(part, dict))]
    tensors = {}
    for part in parts if name else parts[:1]:
        for own, value in part.items():
            if not isinstance(own, str) or not isinstance(value, Tensor):
                continue
            plain = own.removeprefix(PREFIX)
            if plain in tensors:
                raise Refused(f"it holds two tensors {plain[:80]!r}.")
            tensors[plain] = value
    if not tensors:
        names = ", ".join(repr(str(name)[:40]) for name in list(found)[:10]) or "nothing"
        raise Refused(f"it holds no tensors by name, but {names}.")
    return tensors
