"""What the scaling document counts, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import footprint
from otrw_jax.training.devices import AXIS_NAME


def test_collectives_of_a_function_are_added_up_by_kind():
    def step(x, n):
        def body(carry, row):
            return carry + jax.lax.psum(row, AXIS_NAME), None

        total, _ = jax.lax.scan(body, jnp.zeros(5), x)
        gathered = jax.lax.all_gather(x, AXIS_NAME, tiled=True)
        return total, gathered, jax.lax.psum(n, AXIS_NAME)

    arguments = jax.ShapeDtypeStruct((3, 5), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    found = {one.kind: one for one in footprint.collectives(step, arguments, 8)}
    assert {kind: one.size for kind, one in found.items()} == {
        "sum: gradients": 3 * 5 * 4,
        "gather: OT problem": 8 * 3 * 5 * 4,
        "sum: metrics": 4,
    }
    assert found["sum: gradients"].moved(8) == 2 * 7 / 8 * 60
    assert found["gather: OT problem"].moved(8) == 7 / 8 * 480


def test_a_step_of_resnet_50():
    parameters, _ = footprint.abstract_network()
    assert parameters == 25_557_032
    sizes = {
        name: {
            one.kind: one.size
            for one in footprint.collectives(*footprint.abstract_step(make, 8, 4), 8)
        }
        for name, make in footprint.METHODS.items()
        if "label cost" not in name
    }
    plain, ours = sizes["cross-entropy"], sizes["`paper`"]
    assert plain["sum: gradients"] == 4 * parameters
    # The virtual step needs a gradient of its own.
    assert ours["sum: gradients"] == 2 * 4 * parameters
    assert ours["gather: OT problem"] == 8 * 4 * 2048 * 4
    # Labels and ids of the batch.
    assert ours["gather: labels, ids, weights"] == 2 * 8 * 4 * 4
    assert "gather: OT problem" not in sizes["`paper`, a problem a device"]


@pytest.mark.parametrize(("count", "text"), [(12, "12 B"), (1.5e6, "1.5 MB"), (2.5e10, "25 GB")])
def test_sizes(count, text):
    assert footprint.size(count) == text
