"""Ways of training: pure functions of a network and an optimiser (`Method`)."""

from otrw_jax.methods.base import (
    Batch,
    Examples,
    Method,
    Metrics,
    TrainingData,
    check_data,
    classification_metrics,
    global_sum,
    merge_params,
    split_params,
)
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
from otrw_jax.methods.part import Part, TrainState
from otrw_jax.methods.presets import PRESETS
from otrw_jax.methods.wrappers.averaging import averaged
from otrw_jax.methods.wrappers.corrected import corrected
from otrw_jax.methods.wrappers.recalibration import recalibration
from otrw_jax.methods.wrappers.restart import with_fresh_head

__all__ = [
    "PRESETS",
    "Batch",
    "Examples",
    "Method",
    "Metrics",
    "OTProblem",
    "OTReweighting",
    "Part",
    "TrainState",
    "TrainingData",
    "adapted",
    "averaged",
    "balanced_meta_softmax",
    "bbn",
    "check_data",
    "classification_metrics",
    "corrected",
    "deferred",
    "disalign",
    "disalign_weights",
    "erm",
    "example_weights",
    "global_sum",
    "influence",
    "l2rw",
    "learned_weights",
    "lws",
    "merge_params",
    "meta_centroids",
    "meta_class_weight",
    "meta_logistic",
    "meta_weight_net",
    "metasaug",
    "nearest_class_mean",
    "oltr",
    "ot_reweight",
    "ot_weight_net",
    "recalibration",
    "split_params",
    "tau_normalised",
    "with_fresh_head",
]
