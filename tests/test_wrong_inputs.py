"""Wrong inputs of library calls: each ends in a ValueError, in one sentence that names it.

What concerns configs and command lines is in `tests/experiments/test_wrong_inputs.py`.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otrw_jax import EntropicOT, OTReweighting, losses, metrics, posthoc
from otrw_jax.data.images import preprocessing
from otrw_jax.data.sources import load_dataset
from otrw_jax.data.splits import long_tailed_counts, make_split, make_split_of_counts
from otrw_jax.methods.base import Method, split_params
from otrw_jax.methods.bbn import bbn
from otrw_jax.methods.erm import erm
from otrw_jax.methods.heads.meta_set import meta_logistic
from otrw_jax.methods.meta.balanced_meta_softmax import balanced_meta_softmax
from otrw_jax.methods.meta.learned_weights import learned_weights
from otrw_jax.methods.wrappers.averaging import averaged
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.backbones.resnet_cifar import ResNetCifar
from otrw_jax.training.devices import pick_devices
from otrw_jax.training.stages import Stage, check_batch

pytestmark = pytest.mark.usefixtures("signatures_unchecked")

LABELS = np.repeat(np.arange(3), 20)
COUNTS = np.array([20, 10, 5])
NAN, INF = float("nan"), float("inf")
SGD = optax.sgd(0.1)
LOGITS = jnp.zeros((4, 3))
SPLIT = {"imbalance_factor": 2.0, "seed": 0, "meta_per_class": 1}
PARAMS = {"backbone": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}}

# A call, and a part of what it says.
CALLS = {
    "epsilon of 0": (lambda: EntropicOT(epsilon=0.0), "EntropicOT: epsilon is 0.0"),
    "epsilon below 0": (lambda: EntropicOT(epsilon=-1.0), "EntropicOT: epsilon is -1.0"),
    "epsilon of NaN": (lambda: EntropicOT(epsilon=NAN), "EntropicOT: epsilon is nan"),
    "no iterations": (lambda: EntropicOT(max_iterations=0), "EntropicOT.max_iterations is 0"),
    "threshold below 0": (lambda: EntropicOT(threshold=-1.0), "EntropicOT: threshold is -1.0"),
    "threshold of NaN": (lambda: EntropicOT(threshold=NAN), "EntropicOT: threshold is nan"),
    "gradient": (lambda: EntropicOT(gradient="exact"), "EntropicOT.gradient is 'exact'; choose"),
    "cost": (lambda: OTReweighting(cost="cosine"), "OTReweighting.cost is 'cosine'; choose one"),
    "measure": (lambda: OTReweighting(measure="mean"), "OTReweighting.measure is 'mean'"),
    "weighting": (lambda: OTReweighting(weighting="x"), "OTReweighting.weighting is 'x'"),
    "initial": (lambda: OTReweighting(initial="x"), "OTReweighting.initial is 'x'"),
    "simplex": (lambda: OTReweighting(simplex="x"), "OTReweighting.simplex is 'x'"),
    "features": (lambda: OTReweighting(features="x"), "OTReweighting.features is 'x'"),
    "meta features": (lambda: OTReweighting(meta_features="x"), "meta_features is 'x'"),
    "reduction": (lambda: OTReweighting(reduction="x"), "OTReweighting.reduction is 'x'"),
    "problem": (lambda: OTReweighting(problem="x"), "OTReweighting.problem is 'x'"),
    "dynamic": (lambda: OTReweighting(measure="dynamic"), "set meta_features='refresh'"),
    "second order": (
        lambda: OTReweighting(second_order=True, weighting="global"),
        "second_order goes through the virtual step",
    ),
    "sampling": (lambda: OTReweighting(sampling=True), "set weighting='global'"),
    "gamma": (lambda: losses.focal(-1.0), "focal: gamma is -1.0; it must be 0 or more"),
    "beta of 1": (lambda: losses.effective_number_weights(COUNTS, 1.0), "beta is 1.0"),
    "beta below 0": (lambda: losses.effective_number_weights(COUNTS, -0.1), "beta is -0.1"),
    "no counts": (lambda: losses.effective_number_weights([0, 0]), "counts is 0 everywhere"),
    "counts below 0": (lambda: losses.balanced_softmax([3, -1]), "finite and at least 0"),
    "counts of NaN": (lambda: losses.ldam([3.0, NAN]), "finite and at least 0"),
    "infinite counts": (lambda: losses.inverse_frequency_weights([INF, 1.0]), "finite and"),
    "smoothing": (
        lambda: losses.smoothed(losses.cross_entropy, 1.0),
        "smoothed: epsilon is 1.0; it must lie in [0, 1)",
    ),
    "counts of a prior": (lambda: posthoc.adjust_logits(LOGITS, [1, -1, 2]), "at least 0"),
    "marginal": (
        lambda: posthoc.ot_correction(LOGITS, marginal=jnp.ones(2)),
        "ot_correction: marginal has shape (2,); it must be (3,)",
    ),
    "shots": (
        lambda: metrics.shot_accuracy(jnp.eye(3), COUNTS, many=10, few=20),
        "shot_accuracy: few is 20, above many, 10",
    ),
    "factor below 1": (lambda: long_tailed_counts(3, 9, 0.5), "imbalance_factor is 0.5"),
    "factor of NaN": (lambda: long_tailed_counts(3, 9, NAN), "imbalance_factor is nan"),
    "profile": (lambda: long_tailed_counts(3, 9, 2.0, "x"), "profile is 'x'"),
    "one class": (lambda: long_tailed_counts(1, 9, 2.0), "num_classes is 1"),
    "nothing": (lambda: long_tailed_counts(3, 0, 2.0), "largest is 0"),
    "empty class": (lambda: long_tailed_counts(3, 9, 100.0), "class 1 would have no example"),
    "meta below 0": (
        lambda: make_split(LABELS, **SPLIT | {"meta_per_class": -1}),
        "meta_per_class is -1; it must be a whole number, 0 or more",
    ),
    "held-out below 0": (
        lambda: make_split(LABELS, **SPLIT, held_out_per_class=-1),
        "held_out_per_class is -1; it must be a whole number, 0 or more",
    ),
    "labels of floats": (lambda: make_split(LABELS * 1.0, **SPLIT), "dtype float64"),
    "labels of no class": (lambda: make_split(LABELS - 1, **SPLIT), "a label is -1"),
    "labels with a gap": (lambda: make_split(LABELS * 2, **SPLIT), "class 1 has no example"),
    "no labels": (lambda: make_split(LABELS[:0], **SPLIT), "a non-empty vector"),
    "too few counts": (
        lambda: make_split_of_counts(LABELS, (5, 5), seed=0, meta_per_class=1),
        "counts are [5, 5]; 3 whole numbers of 1 or more are needed",
    ),
    "too large counts": (
        lambda: make_split_of_counts(LABELS, (5, 5, 50), seed=0, meta_per_class=1),
        "class 2 is to have 51 examples",
    ),
    "a set's name": (lambda: load_dataset("cifar"), "did you mean 'cifar10'?"),
    "padding": (lambda: preprocessing("cifar10", True, "mirror"), "must be 'reflect' or 'zero'"),
    "depth": (
        lambda: ResNetCifar(depth=33).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False),
        "depth is 33; it must be 6 n + 2",
    ),
    "branches": (
        lambda: MLP(branches=0).init(jax.random.key(0), jnp.zeros((1, 4)), False),
        "branches is 0; it must be 1 or more",
    ),
    "devices": (lambda: pick_devices(1000), "devices is 1000; there are"),
    "devices below 0": (lambda: pick_devices(-1), "devices is -1; there are"),
    "no parameter": (lambda: split_params(PARAMS, "heads/.*"), "matches no parameter; the paths"),
    "decay of 1": (lambda: averaged(Method(None, None), 1.0), "averaged: decay is 1.0"),
    "mixup": (lambda: erm(None, SGD, mixup=-1.0), "erm: mixup is -1.0; it must be 0"),
    "tau": (lambda: learned_weights(None, SGD, tau=0.5), "learned_weights: tau is 0.5"),
    "virtual": (lambda: learned_weights(None, SGD, virtual="x"), "virtual is 'x'; choose"),
    "l2": (lambda: meta_logistic(None, 3, 0.0), "meta_logistic: l2 is 0.0; it must be above 0"),
    "steps": (
        lambda: bbn(None, SGD, COUNTS, 0, steps_per_epoch=1),
        "bbn: total_steps is 0; it must be 1 or more",
    ),
    "temperature": (
        lambda: balanced_meta_softmax(
            None, SGD, SGD, COUNTS, virtual_learning_rate=0.1, temperature=0.0
        ),
        "balanced_meta_softmax: temperature is 0.0; it must be above 0",
    ),
    "batch": (
        lambda: check_batch(Stage("stage1", Method(None, None), 1, 64), 60),
        "stage1: the batch size is 64 and the training set has 60 examples",
    ),
}


@pytest.mark.parametrize(("call", "message"), CALLS.values(), ids=CALLS)
def test_a_wrong_input_is_told_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        call()
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
