"""Recipes that keep the backbone of a first stage of cross-entropy and see to the head."""

from functools import partial

from experiments.recipes.base import Context, Recipe
from otrw_jax.losses import effective_number_weights
from otrw_jax.methods.heads.adapters import adapted, disalign, disalign_weights, lws
from otrw_jax.methods.heads.closed_form import nearest_class_mean, tau_normalised
from otrw_jax.methods.heads.meta_set import meta_centroids, meta_logistic
from otrw_jax.methods.heads.oltr import oltr
from otrw_jax.methods.wrappers.corrected import corrected
from otrw_jax.methods.wrappers.restart import with_fresh_head
from otrw_jax.posthoc import adjust_logits, ot_correction
from otrw_jax.samplers import class_power, sampled

# Of one epoch: their work is done before it, and it measures the result.
ONCE = {"epochs": 1}


def _balanced(c: Context, method):
    return sampled(method, class_power(c.num_classes, 0.0))


def _class_weights(c: Context):
    weights = effective_number_weights(c.counts, c.options.beta)
    return [c.erm_stage(), c.erm_stage(c.second, class_weights=weights)]


class_balanced = Recipe(
    "cross-entropy, then effective-number weights of the classes on the head",
    _class_weights,
    {"beta": 0.9999},
    second={},
    trains_first="cross-entropy",
)


def _crt(c: Context):
    return [
        c.erm_stage(),
        c.erm_stage(c.second, lambda method: _balanced(c, with_fresh_head(method, c.fresh_head))),
    ]


classifier_retraining = Recipe(
    "cRT: a new head on class-balanced draws", _crt, second={}, trains_first="cross-entropy"
)


def _lws(c: Context):
    def make(model, trainable):
        return c.erm(c.second, model, trainable=trainable)

    method = adapted(c.second_model(), lws(), make)
    return [c.erm_stage(), c.stage_of(c.second, _balanced(c, method))]


learnable_scaling = Recipe(
    "LWS: a scale of each class's logit", _lws, second={}, trains_first="cross-entropy"
)


def _disalign(c: Context):
    weights = disalign_weights(c.counts, c.options.rho)

    def make(model, trainable):
        return c.erm(
            c.second,
            model,
            trainable=trainable,
            class_weights=weights,
            divide_by_weights=True,
        )

    return [c.erm_stage(), c.stage_of(c.second, adapted(c.second_model(), disalign(), make))]


distribution_alignment = Recipe(
    "DisAlign: a calibration of the logits",
    _disalign,
    {"rho": 1.2},
    second={},
    trains_first="cross-entropy",
)


def _tau(c: Context):
    method = tau_normalised(c.second_model(), c.num_classes, c.options.tau, axis_name=c.axis_name)
    return [c.erm_stage(), c.stage_of(c.second, method)]


# None: the best on the meta set.
tau_normalisation = Recipe(
    "class vectors over a power of their length",
    _tau,
    {"tau": None},
    second=ONCE,
    trains_first="cross-entropy",
)


def _class_means(c: Context):
    method = nearest_class_mean(c.second_model(), c.num_classes, axis_name=c.axis_name)
    return [c.erm_stage(), c.stage_of(c.second, method)]


class_means = Recipe("nearest class mean", _class_means, second=ONCE, trains_first="cross-entropy")


def _meta_centroids(c: Context):
    method = meta_centroids(c.second_model(), c.num_classes, axis_name=c.axis_name)
    return [c.erm_stage(), c.stage_of(c.second, method)]


meta_set_centroids = Recipe(
    "nearest centroid of the meta set", _meta_centroids, second=ONCE, trains_first="cross-entropy"
)


def _meta_logistic(c: Context):
    method = meta_logistic(c.second_model(), c.num_classes, c.options.l2, axis_name=c.axis_name)
    return [c.erm_stage(), c.stage_of(c.second, method)]


meta_set_logistic = Recipe(
    "logistic regression on the meta set",
    _meta_logistic,
    {"l2": 1.0},
    second=ONCE,
    trains_first="cross-entropy",
)


def _logit_adjustment(c: Context):
    model = c.second_model()

    def logits(head, z):
        return adjust_logits(model.logits(head, z), c.counts, c.options.tau)

    return [
        c.erm_stage(),
        c.stage_of(c.second, corrected(model, logits=logits, axis_name=c.axis_name)),
    ]


logit_adjustment = Recipe(
    "logit adjustment after training",
    _logit_adjustment,
    {"tau": 1.0},
    second=ONCE,
    trains_first="cross-entropy",
)


def _ot_correction(c: Context):
    correct = partial(ot_correction, epsilon=c.options.epsilon, iterations=c.options.iterations)
    method = corrected(c.second_model(), correct=correct, axis_name=c.axis_name)
    return [c.erm_stage(), c.stage_of(c.second, method)]


transport_correction = Recipe(
    "OT between test predictions and uniform classes (transductive)",
    _ot_correction,
    {"epsilon": 1.0, "iterations": 1000},
    second=ONCE,
    trains_first="cross-entropy",
)


def _oltr(c: Context):
    # The authors start the hallucinator as the trained head, which a tanh keeps from being affine.
    affine = not (c.config.model.name == "mlp" and c.config.model.tanh)

    def make(model, optimizer, axis_name):
        return oltr(
            model,
            optimizer,
            c.optimizer(c.second.optimizer, c.second),
            c.num_classes,
            trainable=c.second.trainable,
            batch_norm=c.second.batch_norm,
            hallucinator_from_head=affine,
            axis_name=axis_name,
        )

    return [c.erm_stage(), c.stage(make, c.second)]


open_long_tailed = Recipe(
    "OLTR: meta-embedding with a memory of centroids",
    _oltr,
    second={"trainable": ".*", "batch_norm": True, "feature_copies": 0},
    trains_first="cross-entropy",
)
