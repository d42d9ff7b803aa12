"""The datasets as TFDS builders, prepared without TensorFlow."""

from otrw_jax.extras import brought_by

with brought_by("data", __name__):
    import tensorflow_datasets  # noqa: F401  Each of the builders imports it.
