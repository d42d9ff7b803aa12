import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from otrw_jax.training.checkpoints import ROOM, SUMS, CheckpointError, Checkpoints
from tests.training.states import assert_same, folders, make_state


async def no_space(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_a_state_comes_back_with_its_types_and_bits(tmp_path):
    record = {"history": [{"number": 1, "loss": 0.1, "stage": "stage1"}]}
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert checkpoints.steps() == []
        checkpoints.save(1, make_state(1), record)
        checkpoints.save(2, make_state(2), {"history": []})
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [1, 2]
        template = make_state(7)
        assert_same(checkpoints.restore(template), make_state(2))
        restored = checkpoints.restore(template, 1)
        assert_same(restored, make_state(1))
        assert checkpoints.record(1) == record
        assert checkpoints.record() == {"history": []}
    # The key is a key again, and draws what the saved one would have drawn.
    np.testing.assert_array_equal(
        jax.random.uniform(restored.key[1]), jax.random.uniform(make_state(1).key[1])
    )


def test_a_state_with_a_dict_of_paths_comes_back_as_nested_dicts(tmp_path):
    """Optimiser states once were dicts of paths; their runs go on."""
    state = make_state(1)
    params = {"backbone": {}, **state.variables["params"]}
    paths = {f"head/{name}": leaf + 1 for name, leaf in params["head"].items()}
    trained = {**jax.tree.map(lambda _: None, params), "head": params["head"]}
    optimizer = optax.adam(0.1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state.replace(opt_state=optimizer.init(paths)), {})
        wanted = state.replace(opt_state=optimizer.init(trained))
        assert_same(checkpoints.restore(jax.eval_shape(lambda: wanted)), wanted)
        checkpoints.save(2, wanted, {})
        assert_same(checkpoints.restore(jax.eval_shape(lambda: wanted)), wanted)


def test_the_newest_the_stage_ends_and_the_best_are_kept(tmp_path):
    state = {"x": jnp.zeros(2)}
    kept = []
    with Checkpoints(tmp_path, stage_ends=(2, 6), keep=2) as checkpoints:
        for step in range(1, 9):
            # Epoch 1 is the best of the first stage; in the second 3, and 5 once it is there.
            best = 1 if step <= 2 else 3 if step < 5 else 5
            checkpoints.save(step, state, {}, best=best)
            kept.append(checkpoints.steps())
    assert kept == [
        [1],
        [1, 2],
        [2, 3],
        [2, 3, 4],
        [2, 4, 5],
        [2, 5, 6],
        [2, 5, 6, 7],
        [2, 5, 6, 7, 8],
    ]
    assert folders(tmp_path) == ["2", "5", "6", "7", "8"]


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_of_the_newest_are_kept_as_asked(tmp_path, keep):
    with Checkpoints(tmp_path, keep=keep) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, {"x": jnp.zeros(2)}, {})
        assert checkpoints.steps() == [1, 2, 3, 4, 5][-keep:]


def test_a_state_of_another_model_is_refused_by_the_names_of_its_arrays(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, make_state(), {})
        with pytest.raises(CheckpointError) as caught:
            checkpoints.restore(make_state(width=5))
        message = str(caught.value)
        assert f"checkpoint 4 in {tmp_path} is of another model or method" in message
        assert "variables/params/head/kernel is float32[3, 2], wanted float32[5, 2]" in message
        assert "bias" not in message

        state = make_state()
        more = state.replace(variables={**state.variables, "extra": jnp.zeros(1)})
        with pytest.raises(CheckpointError, match=r"variables/extra is absent, wanted float32\[1"):
            checkpoints.restore(more)
        less = state.replace(variables={"params": state.variables["params"], "state": {}})
        with pytest.raises(CheckpointError, match=r"variables/image is uint8\[4\], wanted none"):
            checkpoints.restore(less)
        other_type = state.replace(step=jnp.zeros((), jnp.float32))
        with pytest.raises(CheckpointError, match=r"step is int32\[\], wanted float32\[\]"):
            checkpoints.restore(other_type)


def test_of_many_differing_arrays_three_are_named(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {f"a{i}": jnp.zeros(2) for i in range(5)}, {})
        with pytest.raises(CheckpointError, match=r"a0 is .*a1 is .*a2 is .* and 2 more\.") as c:
            checkpoints.restore({f"a{i}": jnp.zeros(3) for i in range(5)})
        assert "a3" not in str(c.value)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_missing_checkpoint_is_an_error(tmp_path, read_only):
    template = {"x": jnp.zeros(2)}
    with Checkpoints(tmp_path / "none", read_only=read_only) as checkpoints:
        for read in (checkpoints.record, lambda: checkpoints.restore(template)):
            with pytest.raises(CheckpointError, match="none holds no checkpoint; train first"):
                read()
    with Checkpoints(tmp_path / "two") as checkpoints:
        checkpoints.save(3, template, {})
        checkpoints.save(5, template, {})
        with pytest.raises(CheckpointError, match=r"no checkpoint 4; there are \[3, 5\]"):
            checkpoints.restore(template, 4)
        with pytest.raises(CheckpointError, match=r"no checkpoint 9; there are \[3, 5\]"):
            checkpoints.record(9)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("refused")])
def test_a_failed_write_says_so_and_leaves_the_earlier_ones(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {"history": [1]})
        with monkeypatch.context() as patch:
            patch.setattr(ocp.CheckpointManager, "save", fail)
            with pytest.raises(CheckpointError, match="checkpoint 2 cannot be written") as caught:
                checkpoints.save(2, make_state(2), {})
        assert str(error) in str(caught.value) and str(tmp_path) in str(caught.value)
        assert caught.value.__cause__ is error
        assert checkpoints.steps() == [1]
        assert_same(checkpoints.restore(make_state()), make_state(1))
        checkpoints.save(2, make_state(2), {})
        assert checkpoints.steps() == [1, 2]


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        usage = shutil.disk_usage(tmp_path)._replace(free=ROOM + 10)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: usage)
            with pytest.raises(CheckpointError, match=r"2 cannot be written to .* \(262,154 bytes"):
                checkpoints.save(2, make_state(2), {})
        assert folders(tmp_path) == ["1"]
        checkpoints.save(2, make_state(2), {})
        assert checkpoints.steps() == [1, 2]


def test_a_reader_does_not_disturb_a_writer(tmp_path, monkeypatch):
    write = ocp.StandardCheckpointHandler.async_save
    seen = []

    async def write_while_read(self, *args, **kwargs):
        before = folders(tmp_path)
        with Checkpoints(tmp_path, read_only=True) as reader:
            seen.append(reader.steps())
            assert_same(reader.restore(make_state()), make_state(1))
        assert folders(tmp_path) == before and len(before) == 2
        return await write(self, *args, **kwargs)

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        monkeypatch.setattr(ocp.StandardCheckpointHandler, "async_save", write_while_read)
        checkpoints.save(2, make_state(2), {})
        assert seen == [[1]]
        assert_same(checkpoints.restore(make_state()), make_state(2))


def test_a_reader_creates_nothing(tmp_path):
    with Checkpoints(tmp_path / "none", read_only=True) as checkpoints:
        assert checkpoints.steps() == []
    assert not (tmp_path / "none").exists()


def test_ctrl_c_waits_until_a_checkpoint_is_whole(tmp_path, monkeypatch):
    save = ocp.CheckpointManager.save

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return save(*args, **kwargs)

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(ocp.CheckpointManager, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(1, make_state(1), {})
        assert checkpoints.damage(1) is None and (tmp_path / "1" / SUMS).exists()
        assert_same(checkpoints.restore(make_state()), make_state(1))
