"""Features of a frozen backbone, kept in place of the inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.data.streams import Stream
from otrw_jax.methods.erm import erm
from otrw_jax.training.features import (
    given_features,
    make_keeper,
    make_reader,
    on_frozen_backbone,
    pick_copy,
)
from otrw_jax.training.stages import DeviceData
from tests.methods import problem

MODEL = problem.MODEL
VIEW = problem.make_data()
DATA = DeviceData(VIEW.train, VIEW)
VARIABLES = problem.make_variables()


def jittered(keys, inputs):
    return inputs + jax.vmap(lambda key: jax.random.normal(key, inputs.shape[1:]))(keys)


def test_without_augmentation_one_copy_is_the_features():
    keep = make_keeper(MODEL, lambda keys, x: x, copies=1, size=7)
    kept = keep(VARIABLES, DATA, jax.random.key(0))
    z = np.asarray(problem.hand_features(VARIABLES["params"], VIEW.train.inputs))
    np.testing.assert_allclose(kept.raw.inputs[:, 0], z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept.view.train.inputs, z, rtol=1e-5, atol=1e-6)
    meta = np.asarray(problem.hand_features(VARIABLES["params"], VIEW.meta.inputs))
    np.testing.assert_allclose(kept.view.meta.inputs, meta, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(kept.raw.labels, VIEW.train.labels)
    np.testing.assert_array_equal(kept.view.meta.labels, VIEW.meta.labels)
    keys = jax.random.split(jax.random.key(1), 3)
    np.testing.assert_array_equal(pick_copy(keys, kept.raw.inputs[:3]), kept.raw.inputs[:3, 0])


def test_copies_are_features_of_augmented_inputs_and_all_are_seen():
    copies = 4
    keep = make_keeper(MODEL, jittered, copies)
    kept = keep(VARIABLES, DATA, jax.random.key(0)).raw.inputs
    again = keep(VARIABLES, DATA, jax.random.key(0)).raw.inputs
    np.testing.assert_array_equal(kept, again)
    assert len(np.unique(np.asarray(kept).round(5), axis=1)[0]) == copies
    assert kept.shape == (40, copies, 8)
    # The same keys augment alike whatever the size of the chunks.
    chunked = make_keeper(MODEL, jittered, copies, size=7)(VARIABLES, DATA, jax.random.key(0))
    np.testing.assert_allclose(chunked.raw.inputs, kept, rtol=1e-4, atol=1e-5)
    keys = jax.random.split(jax.random.key(1), 400)
    rows = np.asarray(pick_copy(keys, jnp.broadcast_to(kept[:1], (400, copies, 8))))
    seen = [np.abs(rows - row).max(1) == 0 for row in np.asarray(kept[0])]
    assert np.sum(seen) == 400 and min(np.sum(seen, axis=1)) > 60


def test_what_is_read_is_features_of_prepared_inputs():
    read = make_reader(MODEL, lambda inputs: inputs / 255, size=7)
    stored = VIEW.train._replace(inputs=VIEW.train.inputs * 255)
    z = problem.hand_features(VARIABLES["params"], VIEW.train.inputs)
    found = read(VARIABLES, stored)
    np.testing.assert_allclose(found.inputs, z, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.labels, stored.labels)


def test_inputs_that_stay_on_the_disk_are_read_a_part_at_a_time():
    read = make_reader(MODEL, lambda inputs: inputs, size=7)
    inputs = np.asarray(VIEW.train.inputs)
    found = read(VARIABLES, VIEW.train._replace(inputs=Stream(inputs, threads=2)))
    np.testing.assert_array_equal(found.inputs, read(VARIABLES, VIEW.train).inputs)
    np.testing.assert_array_equal(found.labels, VIEW.train.labels)


def test_no_meta_set():
    data = DeviceData(VIEW.train, VIEW.replace(meta=None))
    kept = make_keeper(MODEL, lambda keys, x: x, copies=1)(VARIABLES, data, jax.random.key(0))
    assert kept.view.meta is None


def test_a_meta_set_to_be_augmented_is_kept_in_copies():
    data = DATA._replace(raw_meta=VIEW.meta)
    kept = make_keeper(MODEL, jittered, 3)(VARIABLES, data, jax.random.key(0))
    assert kept.raw_meta.inputs.shape == (12, 3, 8)
    np.testing.assert_array_equal(kept.raw_meta.labels, VIEW.meta.labels)
    alone = make_keeper(MODEL, jittered, 3)(VARIABLES, DATA, jax.random.key(0))
    assert alone.raw_meta is None
    np.testing.assert_array_equal(kept.raw.inputs, alone.raw.inputs)


def test_a_network_that_is_given_features():
    model = given_features(MODEL)
    z, state = model.features(VARIABLES, jnp.ones((2, 8)), True)
    np.testing.assert_array_equal(z, np.ones((2, 8)))
    assert state is VARIABLES["state"]
    np.testing.assert_array_equal(
        model.logits(VARIABLES["params"]["head"], z), MODEL.logits(VARIABLES["params"]["head"], z)
    )


@pytest.mark.parametrize("trainable", [".*", "head/.*|backbone/.*", ".*kernel"])
def test_what_is_trained_on_kept_features_lies_in_the_head(trainable):
    method = erm(given_features(MODEL), optax.sgd(0.1), trainable=trainable)
    read = make_reader(MODEL, lambda inputs: inputs)
    kept = VIEW.replace(train=read(VARIABLES, VIEW.train), meta=read(VARIABLES, VIEW.meta))
    start = jax.random.key(0), VARIABLES, kept
    with pytest.raises(ValueError, match=r"trainable=.* matches backbone/Dense_0/"):
        on_frozen_backbone(method, trainable).init(*start)
    method = erm(given_features(MODEL), optax.sgd(0.1), trainable=r"(head/|tail).*")
    assert on_frozen_backbone(method, r"(head/|tail).*").init(*start).step == 0


def test_at_least_one_copy_is_kept():
    for copies in (-1, 2.5):
        with pytest.raises(ValueError, match=f"copies is {copies}; it must be 1 or more and whole"):
            make_keeper(MODEL, jittered, copies=copies)
