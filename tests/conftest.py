"""Settings of every test: eight CPU devices, no silent broadcast of ranks, signatures checked."""

import tests.quick  # noqa: I001, before JAX is imported, which reads what it sets.

import jax
import jaxtyping
import pytest

import tests.signatures  # noqa: F401
from tests.quick import (  # noqa: F401
    programs_kept,
    programs_let_go,
    pytest_collection_finish,
    pytest_runtest_protocol,
)

# Before these are imported: every call is then checked against the shapes of its signature.
CHECKED = ("otrw_jax.losses", "otrw_jax.metrics", "otrw_jax.ot")
jaxtyping.install_import_hook(CHECKED, "tests.signatures.checked")

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Parts of the paths of what takes long: some seconds of processor time and more where programs are
# kept from before, or processes of its own. `make test-fast` leaves them out.
SLOW = (
    "experiments/benchmarks/",
    "experiments/photos/",
    "experiments/runs/",
    "experiments/cli/test_compilation.py",
    "experiments/cli/test_processes.py",
    "experiments/studies/controls/",
    "experiments/studies/test_within_minutes.py",
    "experiments/pictures/test_classes.py",
    "experiments/configs/test_earlier.py",
    "experiments/recipes/test_levers.py",
    "experiments/recipes/test_recipes.py",
    "experiments/test_",
    "methods/heads/test_closed_form.py",
    "methods/test_ot_everywhere.py",
    "methods/test_pytrees.py",
    "methods/test_released_parity.py",
    "methods/test_types.py",
    "models/backbones/",
    "models/test_other_libraries.py",
    "models/weights/",
    "ot/test_newton.py",
    "training/fitting/",
    "training/test_checkpoints.py",
    "training/test_damaged_checkpoints.py",
    "training/test_streaming.py",
    "test_compilations.py",
    "test_imports.py",
    "test_layouts.py",
    "test_packaging.py",
    "test_sklearn.py",
    "test_soak.py",
    "test_streaming_page.py",
    "test_weights_elsewhere.py",
)


def pytest_collection_modifyitems(items):
    """Marks what is slow, and has it begun first: workers then end at the same time."""
    for item in items:
        if any(f"tests/{part}" in item.nodeid for part in SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def rank_promotion():
    """Allows it, for what ott-jax does when its iterations are differentiated through."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def signatures_unchecked():
    """Lets arguments pass that no signature allows, for what the functions say to them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
