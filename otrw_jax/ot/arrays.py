"""What the functions of this folder ask of their arrays, and the dtype that they compute in."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from otrw_jax.checks import AnyArray


def require_shapes(where: str, **arrays: tuple[Any, str]) -> None:
    """Raises a ValueError that names the first array whose shape is not the wanted one.

    Args:
        where: the function, as the message has it.
        **arrays: name to an array and its axes, such as `cost=(cost, "n m")`. An axis has one size
            throughout, that of the array that names it first; a last `...` stands for any axes.
    """
    sizes: dict[str, int] = {}
    for name, (array, axes) in arrays.items():
        shape, letters = np.shape(array), axes.split()
        open_ended = letters[-1:] == ["..."]
        letters = letters[:-1] if open_ended else letters
        fits = len(shape) >= len(letters) if open_ended else len(shape) == len(letters)
        known = zip(letters, shape, strict=False)
        if not fits or any(sizes.get(letter, size) != size for letter, size in known):
            wanted = ", ".join(
                f"{letter} = {sizes[letter]}" if letter in sizes else letter
                for letter in axes.split()
            )
            raise ValueError(f"{where}: {name} has the shape {shape}; it must be [{wanted}].")
        sizes.update(zip(letters, shape, strict=False))


def require_masses(where: str, weights: AnyArray | None, meta_weights: AnyArray | None) -> None:
    """Raises a ValueError where known masses are negative, or the two measures' masses differ.

    Traced masses pass, and so does one that is not a number: what is computed of it is none either.
    """
    total = 1.0
    for name, masses in (("meta_weights", meta_weights), ("weights", weights)):
        if masses is None or isinstance(masses, jax.core.Tracer):
            continue
        values = np.asarray(masses).astype(np.float64)
        if (values < 0).any():
            raise ValueError(f"{where}: {name} has an entry of {values.min():g}; masses are >= 0.")
        if name == "meta_weights":
            total = values.sum()
        elif not isinstance(meta_weights, jax.core.Tracer):
            tolerance = 1e-3 if np.asarray(masses).dtype.itemsize > 2 else 2e-2
            if abs(values.sum() - total) > tolerance * total:
                raise ValueError(
                    f"{where}: weights sum to {values.sum():g} and meta_weights to {total:g}; "
                    "scale one of them, the masses must be equal."
                )


def require_labels(
    of: str, labels: AnyArray, least: int | None = None, most: int | None = None
) -> None:
    """Raises a ValueError where known labels are no whole numbers that JAX holds, or foreign."""
    if isinstance(labels, jax.core.Tracer):
        return
    values = np.asarray(labels)
    foreign = values != np.floor(values)
    wanted = "whole numbers"
    if least is not None:
        foreign |= values < least
        wanted += f" from {least} on" if most is None else f" from {least} to {most}"
    if most is not None:
        foreign |= values > most
    if foreign.any():
        raise ValueError(f"{of} labels are {wanted}; {values[foreign][0]} is none.")
    kept = values.astype(jax.dtypes.canonicalize_dtype(values.dtype))
    if (kept != values).any():
        raise ValueError(
            f"{of} labels have {values[kept != values][0]}, which {kept.dtype} does not hold; "
            "number the classes anew (np.unique(labels, return_inverse=True)[1])."
        )


def float_dtype(array: Any) -> jnp.dtype:
    """The dtype of a result: the array's, or the default float where it has whole numbers."""
    dtype = array.dtype if hasattr(array, "dtype") else jnp.asarray(array).dtype
    floating = jnp.issubdtype(dtype, jnp.floating)
    return jax.dtypes.canonicalize_dtype(dtype) if floating else jnp.result_type(float)


def working(*arrays: Any) -> jnp.dtype:
    """The dtype that these are computed in: the widest float among them, float32 or wider."""
    kinds = [x.dtype if hasattr(x, "dtype") else jnp.asarray(x).dtype for x in arrays]
    floats = [d for d in kinds if jnp.issubdtype(d, jnp.floating)] or [jnp.result_type(float)]
    widest = max(jax.dtypes.canonicalize_dtype(d).itemsize for d in floats)
    return jnp.dtype(jnp.float64 if widest == 8 else jnp.float32)


def equally_varying(*arrays: Array) -> list[Array]:
    """The arrays of one dtype, unchanged: under `jax.shard_map` all vary over the same axes.

    Loops and custom derivatives ask for it. The choice is one that compilation takes out.
    """
    never = jnp.zeros((), bool)
    others = sum(jnp.sum(x) for x in arrays)
    return [jnp.where(never, others, x) for x in arrays]
