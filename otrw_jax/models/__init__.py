"""Networks as pure functions: what a method needs of them, heads, backbones."""

from otrw_jax.models.model import Model, flax_model, identity_model, predict
from otrw_jax.models.other_libraries import equinox_model, nnx_model

__all__ = [
    "Model",
    "equinox_model",
    "flax_model",
    "identity_model",
    "nnx_model",
    "predict",
]
