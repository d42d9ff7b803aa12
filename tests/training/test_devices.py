"""How a batch is split over devices, and what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.training.devices import AXIS_NAME, Devices, first_alone, from_first, pick_devices


def test_one_device_maps_nothing():
    one = pick_devices()
    assert one.total == 1 and one.axis_name is None
    x = jnp.arange(6)
    assert one.share(x) is x and one.replicate(x) is x
    assert one.compile(lambda a, b: a + b, spread=(1,), arguments=2)(x, x).tolist() == [
        *range(0, 12, 2)
    ]


def test_all_devices_and_some():
    assert pick_devices(0).total == pick_devices(8).total == 8
    assert pick_devices(2).local == tuple(jax.local_devices()[:2])
    assert pick_devices(2).axis_name == AXIS_NAME


@pytest.mark.parametrize("count", [-1, 9])
def test_devices_that_are_not_there(count):
    with pytest.raises(ValueError, match=f"devices is {count}; there are 8 cpu devices: take 1"):
        pick_devices(count)


@pytest.mark.parametrize(("axis", "shape"), [(0, (8, 2, 5)), (1, (4, 16, 3)), (2, (2, 3, 8))])
def test_a_share_is_the_devices_rows_in_order(axis, shape):
    x = jnp.arange(np.prod(shape)).reshape(shape)
    shared = pick_devices(4).share(x, axis)
    for device, part in enumerate(np.split(np.asarray(x), 4, axis)):
        np.testing.assert_array_equal(shared[device], part)


def test_each_process_takes_its_own_rows():
    x = jnp.arange(24).reshape(3, 8)
    local = tuple(jax.local_devices()[:2])
    rows = [Devices(local, processes=2, process=process).share(x, 1) for process in range(2)]
    np.testing.assert_array_equal(np.concatenate(rows), np.stack(np.split(np.asarray(x), 4, 1)))


def test_a_mapped_function_sees_its_rows_and_gives_one_result():
    devices = pick_devices(8)

    def mean(offset, rows):
        return jax.lax.pmean(jnp.mean(rows), devices.axis_name) + offset

    compiled = devices.compile(mean, spread=(1,), arguments=2)
    result = compiled(devices.replicate(jnp.float32(1.0)), devices.share(jnp.arange(16.0)))
    assert result == 8.5 and result.shape == ()
    assert len(result.devices()) == 8


def test_one_process_waits_for_nobody():
    assert first_alone(lambda: "done") == "done" and from_first(7) == 7
