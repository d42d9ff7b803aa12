"""Signatures, checked at every call: the hook's type checker, and a way to leave it out."""

from beartype import beartype


def checked(function):
    """A function whose arguments and results must be what its signature says.

    Constructors are left as they are: JAX fills pytrees with other things than arrays too.
    """
    return function if function.__qualname__.endswith(".__init__") else beartype(function)
