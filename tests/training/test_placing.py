"""Streamed batches on their way to the devices: how many are ahead, and a process's share."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.training.devices import Devices
from otrw_jax.training.streaming import placed_batches


class Listed:
    """Inputs that no thread reads ahead."""

    def __len__(self):
        return 20

    @contextlib.contextmanager
    def batches(self, ids, size):
        yield (ids[at : at + size] for at in range(0, len(ids), size))


def test_two_more_batches_are_placed_than_are_given():
    placed = []

    def place(batch):
        placed.append(batch)
        return batch

    counts = [len(placed) for _ in placed_batches(Listed(), np.arange(20), 4, place)]
    assert counts == [3, 4, 5, 5, 5]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_process_places_what_a_share_of_all_would_be(axis):
    x = np.arange(64).reshape(8, 8)
    for process in range(2):
        devices = Devices(tuple(jax.local_devices()[:2]), processes=2, process=process)
        own = devices.own(x, axis)
        assert isinstance(own, np.ndarray) and own.shape[axis] == 4
        found, wanted = devices.share_own(own, axis), devices.share(jnp.asarray(x), axis)
        np.testing.assert_array_equal(found, wanted)
        assert found.sharding == wanted.sharding
