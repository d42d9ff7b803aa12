"""Nothing slow is imported before it is needed, and what then is, may be while tracing."""

import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
SLOW = ("matplotlib", "ott", "scipy.stats", "sklearn", "tensorboardX", "torch")
DATA = ("grain", "orbax", "simplejpeg", "tensorflow_datasets")


# Imported while a function is traced, and under the strictest settings of JAX; it then serves
# outside of the trace as well.
SOLVER = """
import jax, jax.numpy as jnp
from otrw_jax import EntropicOT, ot_loss, transport
assert "ott" not in sys.modules
ot = EntropicOT(epsilon=0.5)
cost = jnp.arange(6.0).reshape(3, 2) % 4
loss = lambda w, c: ot_loss(w, c, ot=ot)
with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"), jax.debug_nans(True):
    traced = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(jnp.full(3, 1 / 3), cost[None])
assert "ott" in sys.modules
assert jnp.allclose(traced[0], jax.grad(loss)(jnp.full(3, 1 / 3), cost), atol=1e-5)
print(float(transport(jnp.full(3, 1 / 3), cost, ot=ot).plan.sum()))
"""


def run(program):
    """The words of each line that a program prints in a process of its own."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_nothing_slow_is_imported_before_it_is_needed_and_then_even_in_a_trace():
    """Nor by what the library itself imports, which the scripts import first."""
    scripts = (f"experiments.{name}" for name in ("train", "evaluate", "reproduce", "report"))
    program = f"""
import sys, otrw_jax
print(*sys.modules)
import {", ".join(scripts)}
print(*sys.modules)
{SOLVER}"""
    library, with_scripts, mass = run(program)
    assert "otrw_jax" in library and set(library).isdisjoint(SLOW + DATA)
    assert "experiments.train" in with_scripts and set(with_scripts).isdisjoint(SLOW)
    assert float(mass[0]) == pytest.approx(1, abs=1e-3)
