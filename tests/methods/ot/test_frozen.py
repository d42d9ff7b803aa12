"""Weights for other programs: the dense closed form, Algorithm 1's step, and what is refused."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax import (
    Batch,
    EntropicOT,
    OTReweighting,
    TrainingData,
    combined_cost,
    example_weights,
    feature_cost,
    identity_model,
    label_cost,
    optimal_weights,
    ot_reweight,
    prototypes,
)
from otrw_jax.models.heads import LinearHead
from tests.methods.problem import COUNTS, DIM, NUM_CLASSES, make_examples

TRAIN, META = make_examples(COUNTS, 1), make_examples((4, 4, 4), 2)
COUNT = sum(COUNTS)
DATA = TRAIN.inputs, TRAIN.labels, META.inputs, META.labels
COSTS = {
    "combined": lambda z, y, atoms, of: combined_cost(z, y, atoms, of),
    "feature": lambda z, y, atoms, of: feature_cost(z, atoms),
    "label": lambda z, y, atoms, of: label_cost(y, of),
}


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("measure", ["prototype", "whole"])
def test_by_rows_it_is_the_dense_closed_form(cost, measure):
    atoms, of = META.inputs, META.labels
    if measure == "prototype":
        atoms, of = prototypes(atoms, of, NUM_CLASSES), jnp.arange(NUM_CLASSES)
    dense = COUNT * optimal_weights(COSTS[cost](*DATA[:2], atoms, of), epsilon=0.3)
    found = example_weights(*DATA, cost=cost, measure=measure, epsilon=0.3, rows=7)
    chex.assert_shape(found, (COUNT,))
    chex.assert_type(found, jnp.float32)
    np.testing.assert_allclose(found, dense, rtol=2e-5)


@pytest.mark.parametrize("feature_weight, label_weight", [(0.3, 1.0), (1.0, 0.0)])
def test_the_costs_have_their_weights(feature_weight, label_weight):
    shares = {"feature_weight": feature_weight, "label_weight": label_weight}
    atoms = prototypes(META.inputs, META.labels, NUM_CLASSES), jnp.arange(NUM_CLASSES)
    dense = COUNT * optimal_weights(combined_cost(*DATA[:2], *atoms, **shares), epsilon=0.3)
    found = example_weights(*DATA, epsilon=0.3, **shares)
    np.testing.assert_allclose(found, dense, rtol=2e-5)
    assert np.abs(found - example_weights(*DATA, epsilon=0.3)).max() > 0.1


@pytest.mark.parametrize("method", ["closed_form", "learned"])
def test_weights_have_a_mean_of_one_and_balance_the_classes(method):
    """The classes' masses go to balance, as far as the steps and the features' leakage let them."""
    learned = {"epsilon": 0.2, "optimizer": optax.sgd(0.003), "epochs": 200}
    more = learned if method == "learned" else {}
    weights = np.asarray(example_weights(*DATA, method=method, batch_size=20, **more))
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-5)
    assert weights.min() >= 0 and weights.std() > 0.1
    masses = np.bincount(DATA[1], weights) / weights.sum()
    np.testing.assert_allclose(masses, 1 / 3, atol=0.02)


def test_the_order_of_the_examples_decides_nothing():
    order = np.random.default_rng(0).permutation(COUNT)
    weights = example_weights(*DATA)
    moved = example_weights(DATA[0][order], DATA[1][order], *DATA[2:])
    np.testing.assert_allclose(moved, weights[order], rtol=1e-5)
    meta = np.random.default_rng(0).permutation(len(META.labels))
    np.testing.assert_allclose(
        example_weights(*DATA[:2], DATA[2][meta], DATA[3][meta]), weights, rtol=1e-5
    )


def test_the_length_of_features_decides_nothing():
    scaled = example_weights(3 * DATA[0], DATA[1], DATA[2], DATA[3])
    np.testing.assert_allclose(scaled, example_weights(*DATA), rtol=1e-5)


def test_half_precision_and_other_arrays():
    half = example_weights(np.float16(DATA[0]), np.asarray(DATA[1]), np.float16(DATA[2]), DATA[3])
    chex.assert_type(half, jnp.float32)
    np.testing.assert_allclose(half, example_weights(*DATA), rtol=2e-2)
    lists = [np.asarray(x).tolist() for x in DATA]
    np.testing.assert_allclose(example_weights(*lists), example_weights(*DATA), rtol=1e-6)


def test_whole_numbers_of_64_bits_do_not_wrap():
    """As scaled features do, whose weights are those of the features."""
    scaled = [np.rint(2.0**40 * np.float64(x)).astype(np.int64) for x in (DATA[0], DATA[2])]
    found = example_weights(scaled[0], DATA[1], scaled[1], DATA[3])
    np.testing.assert_allclose(found, example_weights(*DATA), rtol=1e-5)


@pytest.mark.parametrize("size", [10, 12])
def test_learned_weights_are_those_of_algorithm_1_on_a_network_that_does_not_move(size):
    """`ot_reweight` with features for inputs, on the batches that `example_weights` draws."""
    optimizer, seed = optax.sgd(0.2), 5
    config = OTReweighting(
        ot=EntropicOT(epsilon=0.2), trainable="head/.*", batch_norm=False, meta_features="refresh"
    )
    model = identity_model(LinearHead(NUM_CLASSES))
    method = ot_reweight(model, optax.sgd(0.0), optimizer, NUM_CLASSES, config)
    data = TrainingData(TRAIN, META, NUM_CLASSES)
    variables = model.init(jax.random.key(0), TRAIN.inputs)
    state = method.init(jax.random.key(1), variables, data)
    step = jax.jit(method.step)
    for key in jax.random.split(jax.random.key(seed), 2):
        order = jax.random.permutation(key, COUNT)[: COUNT // size * size]
        for ids in order.reshape(-1, size):
            batch = Batch(TRAIN.inputs[ids], TRAIN.labels[ids], ids)
            state, _ = step(state, batch, META)
    found = example_weights(
        *DATA,
        method="learned",
        optimizer=optimizer,
        epochs=2,
        batch_size=size,
        seed=seed,
        epsilon=0.2,
    )
    np.testing.assert_allclose(found, state.weights.values, rtol=1e-4)
    assert np.ptp(found) > 0.1


def test_learned_weights_that_do_not_converge_are_said(monkeypatch):
    from otrw_jax.methods.ot import frozen

    monkeypatch.setattr(frozen, "EntropicOT", lambda **_: EntropicOT(0.1, 1, 1e-9, newton=False))
    options = {"method": "learned", "epochs": 1, "batch_size": 40}
    with pytest.warns(RuntimeWarning, match=r"1 of 1 batches' OT problems did not converge"):
        example_weights(*DATA, **options)
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        example_weights(*DATA, **options)


def with_one(array, value):
    return jnp.asarray(array).at[3, 1].set(value)


REFUSED = {
    "a class without meta example": ({"meta_labels": DATA[3] * 2}, "2 of 5 classes have no meta"),
    "identifiers for classes": (
        {"meta_labels": DATA[3] * 2**28},
        r"classes have no .*: 1, 2, .*10, \.\.\.",
    ),
    "a label that the meta set lacks": ({"labels": DATA[1].at[0].set(3)}, "from 0 to 2; 3 is none"),
    "lengths": ({"labels": DATA[1][:-1]}, r"labels has the shape \(39,\); it must be \[N = 40\]"),
    "widths": ({"meta_features": DATA[2][:, :2]}, r"meta_features has the shape .*d = 5"),
    "names": (
        {"labels": np.full(COUNT, "a")},
        r"labels are <U1; give whole numbers \(of names, np",
    ),
    "floats": ({"meta_labels": DATA[3] / 2}, "meta_labels are float32; give whole numbers"),
    "NaN": ({"features": with_one(DATA[0], jnp.nan)}, "features has 1 rows .* first of them 3"),
    "infinite": (
        {"meta_features": with_one(DATA[2], jnp.inf)},
        "meta_features has 1 rows that are",
    ),
    "text": ({"features": np.full((COUNT, DIM), "a")}, "features are <U1; give numbers"),
    "empty": ({"features": DATA[0][:0], "labels": DATA[1][:0]}, "labels are empty; give some"),
    "method": ({"method": "exact"}, "method is 'exact'; choose closed_form or learned"),
    "measure": ({"measure": "dynamic"}, "measure is 'dynamic'; choose prototype or whole"),
    "cost": ({"cost": "euclidean"}, "cost is 'euclidean'; choose one of"),
    "epsilon": ({"epsilon": 0.0}, "epsilon is 0.0; it must be above 0"),
    "epochs": ({"epochs": 0}, "epochs is 0; it must be 1 or more"),
    "half an epoch": ({"epochs": 2.5}, "epochs is 2.5; it must be 1 or more and whole"),
    "half a row": ({"rows": 2.5}, "rows is 2.5; it must be 1 or more and whole"),
    "half an example": ({"batch_size": 2.5}, "batch_size is 2.5; it must be 1 or more and whole"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    change, said = REFUSED[case]
    named = dict(zip(("features", "labels", "meta_features", "meta_labels"), DATA, strict=True))
    with pytest.raises(ValueError, match=said):
        example_weights(**(named | change))
