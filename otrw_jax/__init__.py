"""Learning example weights by optimal transport for long-tailed classification.

The pure functions are here by name, and once more in the folder of their kind: `ot`, `methods`,
`models`. The training loop is in `training`, data sources in `data`, backbones in
`models.backbones`.
"""

from otrw_jax.losses import (
    balanced_softmax,
    cross_entropy,
    effective_number_weights,
    focal,
    inverse_frequency_weights,
    label_aware_smoothing,
    ldam,
    logit_adjusted,
    smoothed,
)
from otrw_jax.methods.base import Batch, Examples, Method, TrainingData
from otrw_jax.methods.bbn import bbn
from otrw_jax.methods.erm import deferred, erm, influence
from otrw_jax.methods.heads.adapters import adapted, disalign, disalign_weights, lws
from otrw_jax.methods.heads.closed_form import nearest_class_mean, tau_normalised
from otrw_jax.methods.heads.meta_set import meta_centroids, meta_logistic
from otrw_jax.methods.heads.oltr import oltr
from otrw_jax.methods.meta.balanced_meta_softmax import balanced_meta_softmax
from otrw_jax.methods.meta.class_weight import meta_class_weight
from otrw_jax.methods.meta.l2rw import l2rw
from otrw_jax.methods.meta.learned_weights import learned_weights
from otrw_jax.methods.meta.meta_weight_net import meta_weight_net
from otrw_jax.methods.meta.metasaug import metasaug
from otrw_jax.methods.ot.frozen import example_weights
from otrw_jax.methods.ot.problem import OTProblem, OTReweighting
from otrw_jax.methods.ot.reweight import ot_reweight
from otrw_jax.methods.ot.weight_net import ot_weight_net
from otrw_jax.methods.presets import PRESETS
from otrw_jax.methods.wrappers.averaging import averaged
from otrw_jax.methods.wrappers.corrected import corrected
from otrw_jax.methods.wrappers.recalibration import recalibration
from otrw_jax.methods.wrappers.restart import with_fresh_head
from otrw_jax.models.model import Model, flax_model, identity_model, predict
from otrw_jax.models.other_libraries import equinox_model, nnx_model
from otrw_jax.ot.closed_form import optimal_weights
from otrw_jax.ot.costs import combined_cost, feature_cost, label_cost
from otrw_jax.ot.entropic import EntropicOT, Transport, ot_loss, transport
from otrw_jax.ot.measures import (
    Measure,
    balanced_sample,
    prototype_measure,
    prototypes,
    random_prototypes,
    random_sample,
    whole,
)
from otrw_jax.ot.nets import AttentionWeightNet, MLPWeightNet
from otrw_jax.ot.weights import ExampleWeights
from otrw_jax.posthoc import adjust_logits, ot_correction
from otrw_jax.samplers import by_weights, class_power, progressive, sampled
from otrw_jax.training.fitting.default_stages import two_stages
from otrw_jax.training.fitting.fit import fit
from otrw_jax.training.fitting.fitted import Fitted
from otrw_jax.training.stages import Stage

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "AttentionWeightNet",
    "Batch",
    "EntropicOT",
    "ExampleWeights",
    "Examples",
    "Fitted",
    "MLPWeightNet",
    "Measure",
    "Method",
    "Model",
    "OTProblem",
    "OTReweighting",
    "Stage",
    "TrainingData",
    "Transport",
    "adapted",
    "adjust_logits",
    "averaged",
    "balanced_meta_softmax",
    "balanced_sample",
    "balanced_softmax",
    "bbn",
    "by_weights",
    "class_power",
    "combined_cost",
    "corrected",
    "cross_entropy",
    "deferred",
    "disalign",
    "disalign_weights",
    "effective_number_weights",
    "equinox_model",
    "erm",
    "example_weights",
    "feature_cost",
    "fit",
    "flax_model",
    "focal",
    "identity_model",
    "influence",
    "inverse_frequency_weights",
    "l2rw",
    "label_aware_smoothing",
    "label_cost",
    "ldam",
    "learned_weights",
    "logit_adjusted",
    "lws",
    "meta_centroids",
    "meta_class_weight",
    "meta_logistic",
    "meta_weight_net",
    "metasaug",
    "nearest_class_mean",
    "nnx_model",
    "oltr",
    "optimal_weights",
    "ot_correction",
    "ot_loss",
    "ot_reweight",
    "ot_weight_net",
    "predict",
    "progressive",
    "prototype_measure",
    "prototypes",
    "random_prototypes",
    "random_sample",
    "recalibration",
    "sampled",
    "smoothed",
    "tau_normalised",
    "transport",
    "two_stages",
    "whole",
    "with_fresh_head",
]
