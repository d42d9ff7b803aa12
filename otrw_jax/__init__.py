"""Learning example weights by optimal transport for long-tailed classification.

The pure functions are here by name; data sources, backbones, checkpoints and the training loop
are in the modules of those names.
"""

from otrw_jax.losses import (
    balanced_softmax,
    cross_entropy,
    effective_number_weights,
    focal,
    ldam,
    logit_adjusted,
)
from otrw_jax.methods.base import Batch, Examples, Method, TrainingData
from otrw_jax.methods.erm import erm
from otrw_jax.methods.ot_problem import OTReweighting
from otrw_jax.methods.ot_reweight import ot_reweight
from otrw_jax.methods.presets import PRESETS
from otrw_jax.model import Model, flax_model, identity_model, predict
from otrw_jax.ot.closed_form import optimal_weights
from otrw_jax.ot.costs import combined_cost, feature_cost, label_cost
from otrw_jax.ot.measures import (
    Measure,
    balanced_sample,
    prototype_measure,
    prototypes,
    random_prototypes,
    random_sample,
    whole,
)
from otrw_jax.ot.transport import EntropicOT, Transport, ot_loss, transport
from otrw_jax.ot.weights import ExampleWeights

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "Batch",
    "EntropicOT",
    "ExampleWeights",
    "Examples",
    "Measure",
    "Method",
    "Model",
    "OTReweighting",
    "TrainingData",
    "Transport",
    "balanced_sample",
    "balanced_softmax",
    "combined_cost",
    "cross_entropy",
    "effective_number_weights",
    "erm",
    "feature_cost",
    "flax_model",
    "focal",
    "identity_model",
    "label_cost",
    "ldam",
    "logit_adjusted",
    "optimal_weights",
    "ot_loss",
    "ot_reweight",
    "predict",
    "prototype_measure",
    "prototypes",
    "random_prototypes",
    "random_sample",
    "transport",
    "whole",
]
