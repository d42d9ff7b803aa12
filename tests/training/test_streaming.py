"""Inputs that stay on the disk: the steps of the loop in memory, whichever way they are read."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax import erm, ot_reweight, sampled
from otrw_jax.data.streams import Stream
from otrw_jax.methods.base import Examples, TrainingData
from otrw_jax.methods.presets import paper
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import flax_model
from otrw_jax.samplers import class_power
from otrw_jax.training.checkpoints import CheckpointError, Checkpoints
from otrw_jax.training.devices import pick_devices
from otrw_jax.training.loop import make_loop, run_stage
from otrw_jax.training.stages import DeviceData, Stage
from otrw_jax.training.streaming import (
    StreamedData,
    make_streaming_loop,
    run_streamed,
)
from otrw_jax.training.underway import Saver, restore_underway

N, K, SIZE, EPOCHS = 70, 3, 8, 2
STEPS = N // SIZE
KEY = jax.random.key(5)
MODEL = flax_model(MLP(hidden=(16,)), LinearHead(K))


def prepare(keys, stored):
    noise = jax.vmap(lambda key: jax.random.normal(key, stored.shape[1:]))(keys)
    return stored.astype(jnp.float32) / 16 + 0.1 * noise


@functools.cache
def arrays():
    """Stored inputs and labels of the shapes of digits."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 17, (N, 8, 8, 1), np.uint8), rng.integers(0, K, N).astype(np.int32)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "inputs.npy"
    np.save(path, arrays()[0])
    return np.load(path, mmap_mode="r")


def view():
    rng = np.random.default_rng(1)
    meta = Examples(jnp.asarray(rng.normal(size=(6, 8, 8, 1)), jnp.float32), jnp.arange(6) % K)
    return TrainingData(Examples(None, jnp.asarray(arrays()[1])), meta, K)


def in_memory():
    stored, labels = map(jnp.asarray, arrays())
    meta = Examples(jnp.arange(6 * 64, dtype=jnp.uint8).reshape(6, 8, 8, 1) % 17, jnp.arange(6) % K)
    return DeviceData(Examples(stored, labels), view(), meta)


def streamed(stored, **options):
    return StreamedData(Stream(stored, threads=3, **options), view(), in_memory().raw_meta)


def variables():
    return MODEL.init(jax.random.key(1), jnp.zeros((2, 8, 8, 1)))


def _of_state(state, labels):
    """Another distribution after each step."""
    return 1.0 + (jnp.arange(labels.shape[0]) + state.step) % 7


def _drifted(state, data):
    """Another network at the start of an epoch."""
    del data
    params = jax.tree.map(lambda x: 1.1 * x, state.variables["params"])
    return dataclasses.replace(state, variables=state.variables | {"params": params})


def make_stage(name="erm", devices=None):
    axis = (devices or pick_devices()).axis_name
    optimizer = optax.sgd(0.1, momentum=0.9)
    method = erm(MODEL, optimizer, axis_name=axis)
    if name == "paper":
        config = dataclasses.replace(paper(K), virtual_learning_rate=0.1)
        method = ot_reweight(MODEL, optimizer, optax.sgd(0.1), K, config, axis_name=axis)
    if name == "drifting":
        method = method._replace(sampling=_of_state, refresh=_drifted)
    if name == "sampled":
        method = sampled(method, class_power(K, 0.0))
    often = "step" if name == "paper" else "never"
    return Stage("stage1", method, EPOCHS, SIZE, augment_meta=often)


@functools.cache
def streaming_loop(name="erm", steps=1):
    return make_streaming_loop(make_stage(name), prepare, steps_per_call=steps)


def run(runner, loop, data, **options):
    state = None
    if "begun" not in options:
        state = loop.start(KEY, variables(), data)
    found = [(jax.device_get(s), m) for _, s, m in runner(loop, state, data, KEY, **options)]
    return found[-1][0], [metrics for _, metrics in found]


def assert_equal(found, wanted):
    for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        if hasattr(a, "dtype") and jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = map(jax.random.key_data, (a, b))
        np.testing.assert_array_equal(a, b)


@functools.cache
def whole():
    """A state and metrics of the streamed loop, uninterrupted."""
    return run(run_streamed, streaming_loop(), streamed(arrays()[0]))


@pytest.mark.parametrize(
    ("name", "steps"), [("erm", 1), ("erm", 3), ("erm", 0), ("sampled", 3), ("paper", 1)]
)
def test_streamed_steps_are_those_in_memory_bit_for_bit(name, steps, on_disk):
    loop = make_loop(make_stage(name), prepare, steps_per_call=steps)
    wanted = run(run_stage, loop, in_memory())
    found = run(run_streamed, streaming_loop(name, steps), streamed(on_disk))
    assert_equal(found, wanted)
    assert not np.array_equal(
        *(jax.tree.leaves(one["params"])[-1] for one in (found[0].variables, variables()))
    )


def test_the_runner_of_loops_runs_it_too():
    assert_equal(run(run_stage, streaming_loop(), streamed(arrays()[0])), whole())


class Killed(Exception):
    pass


@pytest.mark.parametrize(("name", "steps"), [("erm", 1), ("erm", 3), ("drifting", 1)])
@pytest.mark.parametrize("at", [(0, 3), (1, 6)])
def test_an_epoch_that_was_killed_goes_on_bit_for_bit(at, name, steps, tmp_path):
    loop, data = streaming_loop(name, steps), streamed(arrays()[0])
    wanted = run(run_streamed, loop, data)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        saver = Saver(checkpoints, 3)

        def save(number, underway):
            saver(number, underway)
            if (number, underway.done) >= at:
                raise Killed

        with pytest.raises(Killed):
            run(run_streamed, loop, data, save=save)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.steps() == [at[0] * STEPS + at[1]]
        template = jax.eval_shape(lambda: loop.start(KEY, variables(), data))
        number, begun = restore_underway(checkpoints, template)
        assert (number, begun.done, begun.ids.shape) == (*at, (STEPS, SIZE))
        assert begun.examples == N
        found = run(
            run_streamed,
            loop,
            data,
            first_epoch=number,
            begun=begun,
            save=Saver(checkpoints, 3),
        )
        # The epochs that are left save too, after as many steps.
        assert checkpoints.steps() == [STEPS + 6]
    assert_equal(found[0], wanted[0])
    assert found[1] == wanted[1][number:]


def test_a_run_that_goes_back_writes_its_checkpoints_again(tmp_path):
    """Those after where it begins are of the run before."""
    loop, data = streaming_loop(), streamed(arrays()[0])
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        run(run_streamed, loop, data, save=Saver(checkpoints, 3))
        steps = checkpoints.steps()
        assert steps == [3, 6, STEPS + 3, STEPS + 6]
        seen = []

        def save(number, underway):
            saver(number, underway)
            seen.append(checkpoints.steps())

        saver = Saver(checkpoints, 3)
        run(run_streamed, loop, data, save=save)
    assert seen[:3] == [[], [], [3]] and seen[-1] == steps


def test_inputs_are_read_ahead_and_no_more_than_asked(on_disk):
    """Two calls ahead on the device, and two batches in the threads."""
    read = []

    def view(stored):
        read.append(1)
        return stored

    data, seen = streamed(on_disk, view=view), []
    loop = streaming_loop()
    loop.epoch(loop.start(KEY, variables(), data), data, KEY, save=lambda u: seen.append(len(read)))
    assert len(read) == STEPS * SIZE
    most = SIZE * (np.arange(1, STEPS) + 2 + 2 + 1)
    assert (np.array(seen) <= most).all()


def test_the_share_of_an_epoch_that_is_done_is_told():
    shares = []
    run(run_streamed, streaming_loop(steps=3), streamed(arrays()[0]), tick=shares.append)
    assert shares == EPOCHS * [3 / STEPS, 6 / STEPS]


def test_two_devices_equal_one(on_disk):
    devices = pick_devices(2)
    loop = make_streaming_loop(make_stage("paper", devices), prepare, devices=devices)
    data = streamed(on_disk)
    spread = devices.replicate((data.view, data.raw_meta))
    data = data._replace(view=spread[0], raw_meta=spread[1])
    state, metrics = run(run_streamed, loop, data)
    wanted, wanted_metrics = run(run_streamed, streaming_loop("paper"), streamed(on_disk))
    for a, b in zip(*map(jax.tree.leaves, (state.variables, wanted.variables)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    for one, other in zip(metrics, wanted_metrics, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-6)


def test_what_cannot_be_streamed_is_told(on_disk, tmp_path):
    stage = make_stage()
    reads = dataclasses.replace(stage, method=stage.method._replace(reads_inputs=True))
    with pytest.raises(ValueError, match=r"stage1: the method reads all training inputs .* feat"):
        make_streaming_loop(reads, prepare)
    kept = dataclasses.replace(stage, feature_copies=2)
    with pytest.raises(ValueError, match="stage1: feature_copies is 2, and features that are kept"):
        make_streaming_loop(kept, prepare)
    with pytest.raises(ValueError, match="a batch of 8 does not split evenly over 3 devices"):
        make_streaming_loop(stage, prepare, devices=pick_devices(3))
    loop, data = streaming_loop(), streamed(on_disk[:-1])
    with pytest.raises(ValueError, match="stage1: there are 69 streamed inputs and 70 labels"):
        run(run_streamed, loop, data)
    seen = []

    def save(number, underway):  # The state is donated thereafter.
        state, totals = jax.tree.map(jnp.copy, (underway.state, underway.totals))
        seen.append(underway._replace(state=state, totals=totals))

    run(run_streamed, loop, streamed(on_disk), save=save)
    begun = seen[0]._replace(ids=seen[0].ids[:-1])
    with pytest.raises(ValueError, match="begun has 7 steps, and 70 examples in batches of 8 make"):
        run(run_streamed, loop, streamed(on_disk), begun=begun)
    with pytest.raises(ValueError, match="begun is of 71 examples, and there are 70; go on with"):
        run(run_streamed, loop, streamed(on_disk), begun=seen[0]._replace(examples=71))
    earlier = seen[0]._replace(examples=None)
    assert_equal(run(run_streamed, loop, streamed(on_disk), begun=earlier), whole())
    begun = seen[0]._replace(ids=seen[0].ids[:, :-1])
    with pytest.raises(ValueError, match="stage1: the epoch that has begun has batches of 7, not"):
        run(run_streamed, loop, streamed(on_disk), begun=begun)
    with pytest.raises(ValueError, match="save_every is 0"):
        Saver(None, 0)
    with Checkpoints(tmp_path) as checkpoints:
        assert restore_underway(checkpoints, None) is None
        checkpoints.save(1, {"a": jnp.zeros(1)}, {"history": []})
        with pytest.raises(CheckpointError, match="checkpoint 1 is of no epoch under way"):
            restore_underway(checkpoints, None)


def test_an_input_that_cannot_be_read_ends_the_epoch_in_its_words():
    reads = []

    def view(stored):
        reads.append(1)
        if len(reads) > 6 * SIZE:
            raise ValueError("image 7 is damaged.")
        return stored

    data, seen = streamed(arrays()[0], view=view), []
    with pytest.raises(ValueError, match="image 7") as told:
        run(run_streamed, streaming_loop(), data, save=lambda n, u: seen.append(u.done))
    assert str(told.value) == "image 7 is damaged."
    assert seen and seen[-1] < STEPS - 1
