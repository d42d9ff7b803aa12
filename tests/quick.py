"""What makes the tests quick, and changes nothing of what they test.

- Compilation is most of their time, so XLA's CPU backend is told to optimise little, and what is
  compiled is kept in the environment's folder, for all workers and for the next time; processes
  that tests start inherit both. An entry that cannot be read is compiled anew. Bytecode is kept
  too, whatever the environment says. What is tested is what this project's programs compute, not
  how XLA emits them: its older emitters of fused loops compile in half the time of the newer ones.
  A jaxlib that does not know the option passes over it, as over every extra one.
- All programs of a file of tests are lowered in one context of MLIR; a new one for each takes as
  long as the rest of a small program's lowering.
- Garbage is looked for less often: traces are many small objects, which stay.
- The frames of a test lie in one piece of memory. Python takes and gives back 16 KiB at each call
  that crosses the end of such a piece, thousands of times a second in deep calls as those of
  traces.
"""

import functools
import gc
import os
import pathlib
import sys

import pytest
from _pytest import runner

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

gc.set_threshold(50_000, 20, 20)

import jax  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

CONTEXT = mlir.make_ir_context = functools.cache(mlir.make_ir_context)

MOST_MAPS = 20_000
"""Of a process after a file of tests; one file adds some thousands."""

FRAMES = 400_000
"""Values on the stack of a test and of all that it calls: 3.2 MB, taken as they are used."""


def pytest_collection_finish():
    """Has garbage not looked for in what is imported, which stays."""
    gc.collect()
    gc.freeze()


def run(item, nextitem):
    """A test, below a frame that is given room for those of its calls."""
    return runner.pytest_runtest_protocol(item, nextitem)


run.__code__ = run.__code__.replace(co_stacksize=FRAMES)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    """Runs a test, with its fixtures."""
    return run(item, nextitem)


@pytest.fixture(autouse=True)
def programs_kept():
    """Keeps programs again after a script that keeps none: it says so for the whole process."""
    yield
    jax.config.update("jax_enable_compilation_cache", True)


@pytest.fixture(autouse=True, scope="module")
def programs_let_go():
    """Lets a file's context go, and programs before a process has 65,530 memory maps.

    Linux allows no more, each program on CPUs is several, and a process that has too many ends in
    an abort.
    """
    yield
    CONTEXT.cache_clear()
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > MOST_MAPS:
        jax.clear_caches()
