"""MetaSAug: its formulas by hand, its meta step against an unrolled one, its switch and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.losses import focal, ldam
from otrw_jax.methods.base import Batch, TrainingData
from otrw_jax.methods.meta.meta_loss import meta_batch_of
from otrw_jax.methods.meta.metasaug import (
    ClassMoments,
    add_batch,
    augmented_logits,
    metasaug,
    no_moments,
)
from tests.methods import problem
from tests.methods.problem import MODEL, assert_trees_close, assert_trees_equal, jit

RATE = 0.3
DATA = problem.make_data()
BATCHES = problem.make_batches(DATA, 3)
FIRST = jax.tree.map(lambda x: x[0], BATCHES)
WEIGHTS = jnp.array([0.5, 1.0, 4.0])
TOTAL = 8
LDAM = ldam(problem.COUNTS, scale=1.0)


def make(model=MODEL, optimizer=None, **options):
    # A rate with which the meta step is seen: this problem's covariances have small slopes.
    options = {"virtual_learning_rate": 0.2, "covariance_learning_rate": 20.0, **options}
    return metasaug(model, optimizer or optax.sgd(RATE), WEIGHTS, TOTAL, **options)


def begin(method, model, covariance, dim):
    """A state with moments of made features."""
    state = method.init(jax.random.key(0), problem.make_variables(model), DATA)
    z = np.random.default_rng(0).normal(size=(3, 10, dim))
    full = np.stack([np.cov(own, rowvar=False, bias=True) for own in z])
    covariances = full if covariance == "full" else np.einsum("kdd->kd", full)
    moments = ClassMoments(np.full(3, 10.0), z.mean(1), covariances)
    moments = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), moments)
    assert jax.tree.map(jnp.shape, moments) == jax.tree.map(jnp.shape, state.moments)
    return state.replace(moments=moments)


def made_moments(covariance, rng, dim=4):
    half = rng.normal(size=(3, dim, dim))
    full = half @ half.swapaxes(1, 2)
    return full if covariance == "full" else np.einsum("kdd->kd", full)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_augmented_logits_by_hand(covariance):
    rng = np.random.default_rng(0)
    covariances = made_moments(covariance, rng)
    vectors, logits = rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
    labels = np.array([0, 1, 2, 2, 1, 0])
    found = jit(augmented_logits)(
        *(jnp.asarray(x, jnp.float32) for x in (logits, vectors, covariances)), labels, 0.7
    )
    for i, y in enumerate(labels):
        for j in range(3):
            along = vectors[:, j] - vectors[:, y]
            own = covariances[y] if covariance == "full" else np.diag(covariances[y])
            wanted = logits[i, j] + 0.35 * along @ own @ along
            np.testing.assert_allclose(found[i, j], wanted, rtol=1e-4, atol=1e-5)


def test_the_loss_is_that_of_mean_odds_under_noise():
    """It is -log of 1 over the expected sum of exp(z_j - z_y), and bounds the expected loss."""
    rng = np.random.default_rng(1)
    covariance = made_moments("full", rng)[1] / 4
    vectors, z = rng.normal(size=(4, 3)), rng.normal(size=4)
    noise = rng.multivariate_normal(np.zeros(4), 0.5 * covariance, size=400_000)
    logits = (z + noise) @ vectors
    odds = np.exp(logits - logits[:, 1:2]).sum(1)
    arrays = (z @ vectors)[None], vectors, np.stack([covariance] * 3)
    arrays = (jnp.asarray(x, jnp.float32) for x in arrays)
    augmented = np.asarray(jit(augmented_logits)(*arrays, np.array([1]), 0.5))[0]
    found = np.log(np.exp(augmented - augmented[1]).sum())
    np.testing.assert_allclose(found, np.log(odds.mean()), rtol=1e-2)
    assert np.log(odds).mean() < found


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_moments_are_those_of_all_examples_so_far(covariance):
    rng = np.random.default_rng(2)
    seen, moments, add = [], no_moments(3, 4, covariance), jit(add_batch)
    for labels in ([0, 1, 1, 0, 0], [1, 0, 1, 1, 1], [2, 2, 0, 2, 1]):
        features = rng.normal(size=(5, 4)) + np.array(labels)[:, None]
        seen.append((features, np.array(labels)))
        before = moments
        moments = add(moments, jnp.asarray(features, jnp.float32), jnp.array(labels))
        for one, other in zip(jax.tree.leaves(moments), jax.tree.leaves(before), strict=True):
            absent = np.setdiff1d(np.arange(3), labels)
            np.testing.assert_array_equal(np.asarray(one)[absent], np.asarray(other)[absent])
    features, labels = (np.concatenate(x) for x in zip(*seen, strict=True))
    np.testing.assert_array_equal(moments.counts, np.bincount(labels))
    for c in range(3):
        own = features[labels == c]
        wanted = np.cov(own, rowvar=False, bias=True)
        wanted = wanted if covariance == "full" else np.diag(wanted)
        np.testing.assert_allclose(moments.means[c], own.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments.covariances[c], wanted, rtol=1e-4, atol=1e-5)


def hand_objective(params, covariances, x, y, loss, scale):
    """The weighted loss of each example over a plain forward pass, and loops for the spread."""
    z, head = problem.hand_features(params, x), params["head"]["Dense_0"]
    logits = z @ head["kernel"] + head["bias"][None, :]
    spreads = []
    for c in range(3):
        along = head["kernel"] - head["kernel"][:, c : c + 1]
        own = covariances[c] if covariances.ndim == 3 else jnp.diag(covariances[c])
        spreads.append(jnp.diag(along.T @ own @ along))
    return WEIGHTS[y] * loss(logits + 0.5 * scale * jnp.stack(spreads)[y], y)


CASES = [
    {"loss": LDAM, "start": 5},
    {
        "loss": focal(2.0),
        "covariance": "diagonal",
        "divide_by_weights": False,
        "keep_meta_step": True,
        "meta_batch": 5,
        "virtual_learning_rate": lambda step: jnp.where(step == 5, 0.2, 0.0),
        "trainable": "head/.*",
    },
]


@pytest.mark.parametrize("options", CASES, ids=["margins", "focal"])
def test_a_step_is_the_unrolled_one(options):
    method = make(strength=0.75, **options)
    state = begin(method, MODEL, options.get("covariance", "full"), 8)
    state = state.replace(step=jnp.int32(5))
    params, moments = state.variables["params"], state.moments
    x, y = FIRST.inputs, FIRST.labels
    total = WEIGHTS[y].sum() if options.get("divide_by_weights", True) else 16
    meta = meta_batch_of(DATA.meta, options.get("meta_batch", 12), state.key, 5)
    still = [] if "trainable" not in options else ["backbone"]

    def moved(params, slope, rate):
        new = jax.tree.map(lambda p, g: p - rate * g, params, slope)
        return {**new, **{part: params[part] for part in still}}

    @jit
    def by_hand(params, covariances):
        def objective(params, covariances):
            losses = hand_objective(params, covariances, x, y, options["loss"], 0.75 * 5 / 8)
            return losses.sum() / total

        def meta_loss(covariances):
            virtual = moved(params, jax.grad(objective)(params, covariances), 0.2)
            return problem.hand_losses(virtual, meta.inputs, meta.labels).mean()

        learned = covariances - 20.0 * jax.grad(meta_loss)(covariances)
        return learned, moved(params, jax.grad(objective)(params, learned), RATE)

    learned, wanted = by_hand(params, moments.covariances)
    assert abs(learned - moments.covariances).max() > 1e-3
    step = jit(method.step)
    after, metrics = step(state, FIRST, DATA.meta)
    assert_trees_close(after.variables["params"], wanted)
    if "keep_meta_step" in options:
        moments = moments.replace(covariances=learned)
    z = problem.hand_features(params, x)
    assert_trees_close(after.moments, jit(add_batch)(moments, z, y), rtol=1e-3, atol=1e-5)
    plain = problem.hand_losses(params, x, y)
    np.testing.assert_allclose(metrics["loss"], (plain.sum(), 16), rtol=1e-5)
    if "start" not in options:
        return
    # A step earlier it is the mean cross-entropy that is minimised, and nothing is estimated.
    state = state.replace(step=jnp.int32(4))
    after, _ = step(state, FIRST, DATA.meta)
    slope = problem.hand_gradient(params, x, y, jnp.full(16, 1 / 16))
    assert_trees_close(after.variables["params"], moved(params, slope, RATE))
    assert_trees_equal(after.moments, state.moments)


def test_what_cannot_be():
    variables, key = problem.make_variables(), jax.random.key(0)
    with pytest.raises(ValueError, match="metasaug needs a meta set"):
        make().init(key, variables, TrainingData(DATA.train, None, 3))
    wrong = metasaug(MODEL, optax.sgd(RATE), jnp.ones(2), TOTAL, virtual_learning_rate=0.1)
    with pytest.raises(ValueError, match=r"class_weights has the shape \(2,\)"):
        wrong.init(key, variables, DATA)
    with pytest.raises(ValueError, match="covariance is 'some'; it must be 'full' or 'diagonal'"):
        make(covariance="some").init(key, variables, DATA)


def test_eight_devices_equal_one():
    """Over steps on both sides of the start, with batch statistics."""
    options = {"start": 1, "optimizer": optax.sgd(RATE, momentum=0.9)}
    model = problem.normed_model()
    one = make(model, **options)
    eight = make(problem.normed_model("batch"), axis_name="batch", **options)
    first = state = begin(one, model, "full", 6)
    spread, spread_metrics = problem.on_eight_devices(eight.step, state, BATCHES, DATA.meta)
    step = jit(one.step)
    mean = np.zeros(6)
    for i in range(3):
        batch = Batch(*(x[i] for x in BATCHES))
        layer = state.variables["params"]["backbone"]["Dense_0"]
        mean = 0.99 * mean + 0.01 * (batch.inputs @ layer["kernel"] + layer["bias"][None]).mean(0)
        state, metrics = step(state, batch, DATA.meta)
        at_step = jax.tree.map(lambda x, i=i: x[i], spread_metrics)
        assert_trees_close(at_step, metrics, rtol=1e-3)
    assert_trees_close(spread, state, rtol=1e-3, atol=1e-4)
    assert state.moments.counts.sum() == 30 + 2 * 16
    assert abs(state.moments.covariances - first.moments.covariances).max() > 1e-2
    # The running statistics follow the training batches alone.
    found = state.variables["state"]["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-6)
