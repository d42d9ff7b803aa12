"""Entropic optimal transport between weighted examples and a balanced measure."""

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

__all__ = [
    "AttentionWeightNet",
    "EntropicOT",
    "ExampleWeights",
    "MLPWeightNet",
    "Measure",
    "Transport",
    "balanced_sample",
    "combined_cost",
    "feature_cost",
    "label_cost",
    "optimal_weights",
    "ot_loss",
    "prototype_measure",
    "prototypes",
    "random_prototypes",
    "random_sample",
    "transport",
    "whole",
]
