"""Packages beyond the library's core: where one is missing, its extra is named."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def brought_by(extra: str, module: str) -> Iterator[None]:
    """Imports within it, of which one that finds no package names the extra that brings it.

    Args:
        extra: of this distribution's extras in setup.cfg.
        module: `__name__` of the module that imports; where it is the one that is run, by
            `python -m`, the sentence alone ends the program.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("", "otrw_jax"):
            raise
        text = f"{name} is not installed; pip install 'otrw_jax[{extra}]' brings it."
        if module == "__main__":
            sys.exit(text)
        raise ModuleNotFoundError(text, name=error.name) from error
