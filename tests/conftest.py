"""Settings of every test: eight CPU devices, no silent broadcast between ranks, quick compilation.

Compilation is most of the tests' time, so XLA's CPU backend is told to optimise little, and what is
compiled is kept in the environment's folder, for all workers and for the next time; processes that
tests start inherit both. An entry that cannot be read is compiled anew. Bytecode is kept too,
whatever the environment says.

What is tested is what this project's programs compute, not how XLA emits them: its older emitters
of fused loops compile in half the time of the newer ones. A jaxlib that does not know the option
passes over it, as over every extra one.
"""

import gc
import os
import pathlib
import sys

QUICK = (
    "--xla_backend_optimization_level=0 "
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
)

# Before JAX is imported, which reads them. A worker inherits them from its parent: the flags, which
# are part of an entry's key, must not be doubled.
if QUICK not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(sys.prefix, "compiled")))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

import tests.signatures  # noqa: E402, F401

# Before these are imported: every call is then checked against the shapes of its signature.
CHECKED = ("otrw_jax.losses", "otrw_jax.metrics", "otrw_jax.ot")
jaxtyping.install_import_hook(CHECKED, "tests.signatures.checked")

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
    "experiments/photos/",
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

MOST_MAPS = 20_000
"""Of a process after a file of tests; one file adds some thousands."""

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """Marks what is slow, and has it begun first: workers then end at the same time."""
    for item in items:
        if any(f"tests/{part}" in item.nodeid for part in SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish():
    """Has garbage looked for less often, and not in what stays: traces are many small objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def programs_kept():
    """Keeps programs again after a script that keeps none: it says so for the whole process."""
    yield
    jax.config.update("jax_enable_compilation_cache", True)


@pytest.fixture(autouse=True, scope="module")
def programs_let_go():
    """Lets compiled programs go before a process has as many memory maps as Linux allows, 65,530.

    Each program on CPUs is several maps, and a process that has too many ends in an abort.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > MOST_MAPS:
        jax.clear_caches()


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
