"""Parts of parameters, and metrics as (sum, count)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.methods import base
from otrw_jax.paths import named_leaves

PARAMS = {
    "backbone": {"Dense_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}},
    "head": {"Dense_0": {"kernel": jnp.ones((3, 4))}},
}


@pytest.mark.parametrize(
    ("trainable", "paths"),
    [
        ("head/.*", {"head/Dense_0/kernel"}),
        (".*kernel", {"head/Dense_0/kernel", "backbone/Dense_0/kernel"}),
        (
            ".*",
            {"head/Dense_0/kernel", "backbone/Dense_0/kernel", "backbone/Dense_0/bias"},
        ),
    ],
)
def test_split_and_merge(trainable, paths):
    trained, frozen = base.split_params(PARAMS, trainable)
    assert set(named_leaves(trained)) == paths
    assert set(named_leaves(frozen)) == set(named_leaves(PARAMS)) - paths
    merged = base.merge_params(trained, frozen)
    assert jax.tree.structure(merged) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, merged, PARAMS)
    assert base.trains_backbone(trained) == (trainable != "head/.*")


def test_the_whole_path_must_match():
    with pytest.raises(ValueError, match=r"trainable='head' matches no parameter; .*Dense_0"):
        base.split_params(PARAMS, "head")


def test_a_pattern_must_be_one():
    with pytest.raises(ValueError, match=r"trainable='head/\(' is no regular expression: .*'head/"):
        base.split_params(PARAMS, "head/(")


def test_all_that_is_trained_is_the_tree_as_it_is():
    trained, frozen = base.split_params({**PARAMS, "none": None}, ".*")
    assert jax.tree.structure(trained) == jax.tree.structure({**PARAMS, "none": None})
    assert not jax.tree.leaves(frozen)


def test_merge_keeps_an_empty_backbone():
    params = {"backbone": {}, "head": {"kernel": jnp.ones(2)}}
    trained, frozen = base.split_params(params, ".*")
    assert base.merge_params(trained, frozen).keys() == {"backbone", "head"}
    assert not base.trains_backbone(trained)


def test_classification_metrics():
    logits = jnp.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    losses, labels = jnp.array([0.5, 1.0, 2.0]), jnp.array([0, 0, 1])
    metrics = base.classification_metrics(losses, logits, labels, None)
    assert {k: (float(s), float(c)) for k, (s, c) in metrics.items()} == {
        "loss": (3.5, 3.0),
        "error": (2.0, 3.0),
    }


def test_global_sum():
    x = jnp.arange(8.0)
    assert base.global_sum(x, None) is x
    total = jax.vmap(lambda v: base.global_sum(v, "batch"), axis_name="batch")(x)
    np.testing.assert_array_equal(total, np.full(8, 28.0))
