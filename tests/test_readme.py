"""The README's code runs as it stands, and its commands exist."""

import importlib
import pathlib
import re

import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_library_example_runs_in_a_training_loop():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    scope = {}
    exec(code, scope)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [12, 3, 1])
    features = np.eye(3, 8)[labels] + 0.1 * rng.normal(size=(16, 8))
    meta_labels = np.repeat(np.arange(3), 5)
    meta_features = np.eye(3, 8)[meta_labels] + 0.1 * rng.normal(size=(15, 8))
    weights = jnp.full(16, 1 / 16)
    for _ in range(100):
        loss, weights = scope["weighted_loss"](
            weights,
            features.astype(np.float32),
            jnp.zeros((16, 3)),
            labels,
            meta_features.astype(np.float32),
            meta_labels,
        )
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-5)
    # The classes' masses go from 3/4, 3/16 and 1/16 towards a third each.
    masses = np.bincount(labels, weights)
    np.testing.assert_allclose(masses, 1 / 3, atol=0.1)
    assert masses[0] < 0.5 and masses[2] > 0.2


def test_example_is_at_most_fifteen_lines():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15


def test_modules_of_the_commands_exist():
    for module in set(re.findall(r"python -m ([\w.]+)", README)):
        assert importlib.util.find_spec(module), module


def test_linked_files_exist():
    for link in re.findall(r"\]\((docs/[^)#]+)\)", README):
        assert (ROOT / link).exists(), link
