"""Small files of weights in both formats, and what is asserted of them."""

import jax.numpy as jnp
import numpy as np

from tests.models.weights import pth_files as make

NUMBERS = np.arange(6, dtype=np.float32)
RANDOM = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": np.asfortranarray(RANDOM.normal(size=(2, 3, 4)).astype(np.float32)),
    "half": RANDOM.normal(size=5).astype(np.float16),
    "double": RANDOM.normal(size=(2, 2)),
    "brain": np.asarray([1.5, -2.0], jnp.bfloat16),
    "count": np.asarray(7),
    "mask": np.asarray([True, False]),
}
FORMATS = {"zip": make.zip_file, "legacy": make.legacy_file}
PLAIN = {"w": make.tensor()}


def assert_arrays(found, wanted=ARRAYS):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def assert_sentence(error):
    message = str(error.value)
    assert "weights.pth cannot be read as a .pth file: " in message
    assert message.endswith(".") and "\n" not in message and len(message) < 400
