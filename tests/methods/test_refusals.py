"""What every method refuses before it trains: labels of no class, data that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax.methods.base import Examples, classification_metrics
from otrw_jax.methods.bbn import bbn
from otrw_jax.methods.erm import deferred, erm, influence
from otrw_jax.methods.heads.adapters import disalign, disalign_weights
from otrw_jax.methods.heads.closed_form import tau_normalised
from otrw_jax.methods.heads.meta_set import meta_logistic
from otrw_jax.methods.heads.oltr import oltr
from otrw_jax.methods.meta.balanced_meta_softmax import balanced_meta_softmax
from otrw_jax.methods.meta.class_weight import meta_class_weight
from otrw_jax.methods.meta.l2rw import l2rw
from otrw_jax.methods.meta.learned_weights import learned_weights
from otrw_jax.methods.meta.meta_weight_net import meta_weight_net
from otrw_jax.methods.meta.metasaug import metasaug
from otrw_jax.methods.ot.problem import OTReweighting
from otrw_jax.methods.wrappers.averaging import averaged

from . import problem
from .every_method import METHODS, SGD
from .problem import MODEL, NUM_CLASSES, jit

DATA = problem.make_data()
VARIABLES = problem.make_variables()
INPUTS, LABELS = DATA.train
META = DATA.meta


def with_label(labels, value):
    return labels.at[3].set(value)


# What is wrong with the data, and what is said of it.
WRONG = {
    "label of -1": (
        DATA.replace(train=Examples(INPUTS, with_label(LABELS, -1))),
        r"training set: labels are whole numbers from 0 to 2; -1 is none\.",
    ),
    "label of K": (
        DATA.replace(train=Examples(INPUTS, with_label(LABELS, 3))),
        r"training set: labels are whole numbers from 0 to 2; 3 is none\.",
    ),
    "meta label of K": (
        DATA.replace(meta=Examples(META.inputs, with_label(META.labels, 3))),
        r"meta (set: )?labels are whole numbers from 0 to 2; 3 is none\.",
    ),
    "fewer labels": (
        DATA.replace(train=Examples(INPUTS, LABELS[:-1])),
        r"training set: inputs have shape \(40, 5\) and labels \(39,\); give one label",
    ),
    "another width": (
        DATA.replace(meta=Examples(META.inputs[:, :4], META.labels)),
        r"a training input has shape \(5,\) and a meta input \(4,\); both go through one",
    ),
    "labels that are floats": (
        DATA.replace(train=Examples(INPUTS, LABELS.astype(jnp.float32))),
        r"training set: labels are float32; give whole numbers\.",
    ),
    "more classes": (DATA.replace(num_classes=4), r"4 classes|the data have 4|no meta example: 3"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", METHODS)
def test_data_are_checked_before_training(name, wrong):
    data, told = WRONG[wrong]
    with pytest.raises(ValueError, match=told):
        METHODS[name](MODEL).init(jax.random.key(0), VARIABLES, data)


RATE = {"virtual_learning_rate": 0.1}
WEIGHTS = np.ones(NUM_CLASSES)
COUNTS = np.array(problem.COUNTS)
# A function, arguments it takes, and of some of them values that it refuses.
NUMBERS = {
    "erm": (lambda **o: erm(MODEL, SGD, **o), {"mixup": -1, "meta_cross_entropy": np.nan}),
    "erm's weights": (
        lambda class_weights: erm(MODEL, SGD, class_weights=class_weights),
        {"class_weights": np.array([1, np.nan, 1])},
    ),
    "deferred": (
        lambda weights=WEIGHTS, start=0: deferred(weights, start),
        {"weights": np.array([np.inf]), "start": -1},
    ),
    "influence": (influence, {"alpha": np.inf, "floor": 0, "start": -1}),
    "averaged": (lambda decay: averaged(erm(MODEL, SGD), decay), {"decay": np.nan}),
    "l2rw": (lambda **o: l2rw(MODEL, SGD, **o), {"meta_batch": 0}),
    "learned_weights": (
        lambda **o: learned_weights(MODEL, SGD, **o),
        {
            "tau": np.inf,
            "regularisation": -1,
            "initial": np.nan,
            "meta_batch": 0,
            "virtual_learning_rate": np.nan,
        },
    ),
    "meta_class_weight": (
        lambda class_weights=WEIGHTS, start=0, **o: meta_class_weight(
            MODEL, SGD, class_weights, start=start, **o
        ),
        {
            "class_weights": np.array([np.nan, 1, 1]),
            "start": -1,
            "virtual_learning_rate": np.inf,
            "weight_learning_rate": np.nan,
            "meta_batch": 0,
        },
    ),
    "meta_weight_net": (
        lambda **o: meta_weight_net(MODEL, SGD, SGD, **(RATE | o)),
        {"virtual_learning_rate": -1, "hidden": 0, "meta_batch": 0},
    ),
    "metasaug": (
        lambda class_weights=WEIGHTS, total_steps=4, **o: metasaug(
            MODEL, SGD, class_weights, total_steps, **(RATE | o)
        ),
        {
            "class_weights": np.array([np.inf, 1, 1]),
            "total_steps": 0,
            "virtual_learning_rate": np.nan,
            "start": -1,
            "strength": np.nan,
            "covariance_learning_rate": np.inf,
            "meta_batch": 0,
        },
    ),
    "balanced_meta_softmax": (
        lambda **o: balanced_meta_softmax(MODEL, SGD, SGD, COUNTS, **(RATE | o)),
        {
            "temperature": np.inf,
            "initial": np.nan,
            "virtual_learning_rate": -1,
            "meta_batch": 0,
        },
    ),
    "bbn": (
        lambda **o: bbn(MODEL, SGD, COUNTS, **({"total_steps": 4, "steps_per_epoch": 2} | o)),
        {"total_steps": np.nan, "steps_per_epoch": 0},
    ),
    "oltr": (
        lambda **o: oltr(MODEL, SGD, SGD, NUM_CLASSES, **o),
        {"centroid_weight": np.nan},
    ),
    "tau_normalised": (lambda tau: tau_normalised(MODEL, NUM_CLASSES, tau), {"tau": np.nan}),
    "meta_logistic": (
        lambda **o: meta_logistic(MODEL, NUM_CLASSES, **o),
        {"l2": np.nan, "max_iterations": 0, "tolerance": -1},
    ),
    "disalign": (disalign, {"scale": np.nan}),
    "disalign_weights": (lambda rho: disalign_weights(COUNTS, rho), {"rho": np.inf}),
    "OTReweighting": (
        OTReweighting,
        {
            "feature_weight": np.nan,
            "label_weight": -1,
            "measure_size": 0,
            "virtual_learning_rate": np.inf,
            "meta_cross_entropy": np.nan,
        },
    ),
}


@pytest.mark.parametrize(
    ("where", "name"), [(where, name) for where, (_, bad) in NUMBERS.items() for name in bad]
)
def test_numbers_out_of_their_range_are_told_by_name(where, name):
    make, bad = NUMBERS[where]
    with pytest.raises(ValueError, match=rf"\w+: {name} (is|are) .*; (it|they) must be "):
        make(**{name: bad[name]})


def test_an_empty_grid_of_exponents():
    with pytest.raises(ValueError, match="tau_normalised: the grid is empty"):
        tau_normalised(MODEL, NUM_CLASSES, grid=())


def test_padding_in_a_batch_has_no_gradient_and_does_not_count():
    method = erm(MODEL, optax.sgd(0.1), mixup=0.0)
    state = method.init(jax.random.key(0), VARIABLES, DATA)
    batch = problem.batch_of(DATA, range(16))
    half = problem.batch_of(DATA, range(8))
    padded = batch._replace(labels=batch.labels.at[8:].set(-1))
    step = jit(method.step)
    after, metrics = step(state, padded, None)
    wanted, wanted_metrics = step(state, half, None)
    for name in ("loss", "error"):
        np.testing.assert_allclose(metrics[name], wanted_metrics[name], rtol=1e-6)
    moves = [
        jax.tree.map(lambda new, old: new - old, one.variables["params"], VARIABLES["params"])
        for one in (after, wanted)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *moves)


def test_metrics_of_labels_of_other_types():
    logits = jnp.array([[2.0, 1.0], [0.0, 1.0]])
    for dtype in (jnp.uint8, jnp.int16):
        with jax.numpy_dtype_promotion("strict"):
            metrics = classification_metrics(jnp.ones(2), logits, jnp.array([0, 0], dtype), None)
        assert [float(x) for x in metrics["error"]] == [1.0, 2.0]
