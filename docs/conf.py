"""Sphinx: these documents, and the docstrings of the library, as pages; by `make docs`."""

import collections
import re
import typing
import warnings

typing.GENERATING_DOCUMENTATION = "jaxtyping"  # It then shows shapes as a signature writes them.
warnings.simplefilter("ignore", DeprecationWarning)  # Of what the dependencies import.

project = "otrw_jax"
copyright = author = "the authors of otrw_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "otrw_jax"
myst_heading_anchors = 3
default_role = "py:obj"  # A name in backticks links to where it is documented.
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False  # The signature has them.

FIELD = type(collections.namedtuple("Named", "field").field)
EITHER = re.compile(r"(~[\w.]+)\[Array, ('[^']*')\] \| \1\[ndarray, \2\]")
OF_LINEN = re.compile(r", parent: .*None = None\)")


def shortened(app, what, name, documented, options, signature, returned):
    """A signature without what linen adds to every module, and with the public name of arrays."""
    if signature is None:
        return None
    texts = (OF_LINEN.sub(")", signature), returned)
    return tuple(text and EITHER.sub(r"\1[Array | ndarray, \2]", public(text)) for text in texts)


def public(text):
    """Arrays of JAX by the name that users know."""
    return text.replace("jaxlib._jax.Array", "Array")


def left_out(app, what, name, documented, skip, options):
    """Leaves out what is there already, as named tuples' fields, or is of flax or scikit-learn."""
    of_others = name == "replace" or re.fullmatch(r"set_\w+_request", name)
    return True if isinstance(documented, FIELD) or of_others else None


def setup(app):
    """What Sphinx calls."""
    app.connect("autodoc-process-signature", shortened)
    app.connect("autodoc-skip-member", left_out)
