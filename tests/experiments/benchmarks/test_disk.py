"""What reading images from the disk takes, and what a device asks for: records and tables."""

import importlib.util
import itertools
import json
import types

import numpy as np
import pytest
from flax import linen as nn

from experiments.benchmarks.disk import demand, stream
from experiments.benchmarks.timing import Effort

TINY = Effort(repeats=2, minimum_seconds=0.0, draws=2, largest=False)


class Mean(nn.Module):
    """The mean colour of an image."""

    def __call__(self, x, train):
        return x.mean((1, 2))


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs PyTorch")
def test_images_from_the_disk_are_measured_against_the_same_ones(monkeypatch, tmp_path):
    for name, value in (("HEIGHT", 30), ("WIDTH", 40), ("SIDE", 16), ("CROP", 12), ("BATCH", 2)):
        monkeypatch.setattr(stream, name, value)
    for name, value in (("NETWORK", Mean()), ("SIDE", 4), ("BATCHES", {"cpu": 2})):
        monkeypatch.setattr(demand, name, value)
    # A second for ours, two for theirs, in turn.
    ticks = itertools.accumulate(itertools.cycle([0.0, 1.0, 0.0, 2.0]))
    monkeypatch.setattr(stream, "time", types.SimpleNamespace(process_time=ticks.__next__))
    seconds = itertools.count(step=0.5)  # As long as demand.STEPS steps of two images take.
    monkeypatch.setattr(demand, "time", types.SimpleNamespace(perf_counter=seconds.__next__))
    *records, device = stream.run(TINY)
    assert json.loads(json.dumps(device)) == device
    assert (device["batch"], device["rate"]) == (2, 2 * 2 * demand.STEPS)
    assert json.loads(json.dumps(records)) == records
    assert [record["name"] for record in records] == ["squares of 16²", "a network's inputs, 12²"]
    for record in records:
        assert (record["images"], record["ours"], record["pytorch"]) == (8, 8.0, 4.0)
        assert record["ratio"] == 2.0
    records[0] |= {"ours": 500.0, "ratio": 1.25}
    records[1]["ratio"] = 0.8
    text = stream.markdown([*records, device | {"rate": 1000.0}])
    (row,) = [line for line in text.splitlines() if line.startswith("| this one, cpu")]
    assert row.split()[-4:] == ["1,000", "|", "2.00", "|"]  # Of squares, 500 a core and second.
    (row,) = [line for line in text.splitlines() if line.startswith("| squares")]
    assert "2.00" in row and "1.25" in row and "met" in row
    assert text.count("missed") == 1

    from experiments.benchmarks.disk import loader

    paths, order = stream._written(tmp_path, 5), np.array([3, 1, 4])
    with stream.ImageStream(paths, 16).batches(order, 3) as read:
        ours = next(read)
    (theirs,) = list(loader.batches(loader.Squares(paths, 16), order, 3))
    np.testing.assert_array_equal(ours, theirs.numpy())
    views = loader.Views(paths, 16, 12, 0.4, stream.IMAGENET_MEAN, stream.IMAGENET_STD)
    assert views[0].shape == (3, 12, 12) and views[0].dtype.is_floating_point
