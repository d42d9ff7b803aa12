"""Recipes of one stage whose weights, augmentation or sampling rates are learned on a meta set."""

import optax

from experiments.recipes.base import Context, Recipe
from experiments.recipes.losses import scaled
from otrw_jax import losses
from otrw_jax.losses import effective_number_weights
from otrw_jax.methods.meta.balanced_meta_softmax import balanced_meta_softmax
from otrw_jax.methods.meta.class_weight import meta_class_weight
from otrw_jax.methods.meta.l2rw import l2rw
from otrw_jax.methods.meta.learned_weights import learned_weights
from otrw_jax.methods.meta.meta_weight_net import meta_weight_net
from otrw_jax.methods.meta.metasaug import metasaug
from otrw_jax.models.heads import CosineHead, LinearHead

META = {"meta_batch": 100}
# In the programs of these the meta set goes through the augmentation of training.
AUGMENTED = META | {"augment_meta": "step"}


def _l2rw(c: Context):
    def make(model, optimizer, axis_name):
        return l2rw(
            model,
            optimizer,
            loss=c.smoothed(c.first, losses.cross_entropy),
            meta_batch=c.options.meta_batch,
            axis_name=axis_name,
        )

    return [c.stage(make)]


learning_to_reweight = Recipe(
    "L2RW: weights by the inner product with the meta gradient", _l2rw, META, trains_first="l2rw"
)


def _meta_weight_net(c: Context):
    net_optimizer = optax.chain(
        optax.add_decayed_weights(c.options.net_weight_decay),
        optax.sgd(c.options.net_learning_rate, momentum=0.9, nesterov=True),
    )

    def make(model, optimizer, axis_name):
        return meta_weight_net(
            model,
            optimizer,
            net_optimizer,
            virtual_learning_rate=c.learning_rate(c.first),
            loss=c.smoothed(c.first, losses.cross_entropy),
            hidden=c.options.hidden,
            meta_batch=c.options.meta_batch,
            axis_name=axis_name,
        )

    return [c.stage(make, augment_meta=c.options.augment_meta)]


weight_net = Recipe(
    "Meta-Weight-Net: weights by a net that reads the loss",
    _meta_weight_net,
    AUGMENTED | {"hidden": 100, "net_learning_rate": 1e-5, "net_weight_decay": 5e-4},
    trains_first="mwn",
)


def _learned_weights(c: Context):
    def make(model, optimizer, axis_name):
        return learned_weights(
            model,
            optimizer,
            virtual_learning_rate=c.learning_rate(c.first),
            tau=c.options.tau,
            loss=c.smoothed(c.first, losses.cross_entropy),
            meta_batch=c.options.meta_batch,
            axis_name=axis_name,
        )

    return [c.stage(make)]


learned_example_weights = Recipe(
    "Hu et al.: example weights by the slope of the meta loss",
    _learned_weights,
    META | {"tau": 5.0},
    trains_first="hu",
)


def _meta_class_weight(loss, meta_loss=lambda c: losses.cross_entropy, wrap=lambda c: lambda m: m):
    def stages(c: Context):
        def make(model, optimizer, axis_name):
            method = meta_class_weight(
                model,
                optimizer,
                effective_number_weights(c.counts, c.options.beta),
                start=c.step_at(c.first, c.options.start),
                loss=c.smoothed(c.first, loss(c)),
                loss_meta=meta_loss(c),
                virtual_learning_rate=c.options.virtual_learning_rate,
                weight_learning_rate=c.options.weight_learning_rate,
                meta_batch=c.options.meta_batch,
                axis_name=axis_name,
            )
            return wrap(c)(method)

        return [c.stage(make, augment_meta=c.options.augment_meta)]

    return stages


CLASS_WEIGHT = AUGMENTED | {
    "beta": 0.9999,
    "start": 0.8,
    "virtual_learning_rate": 1e-3,
    "weight_learning_rate": 0.01,
}

class_weight = Recipe(
    "meta-class-weight, cross-entropy",
    _meta_class_weight(lambda c: losses.cross_entropy),
    CLASS_WEIGHT,
    trains_first="mcw_ce",
)

class_weight_focal = Recipe(
    "meta-class-weight, focal loss",
    _meta_class_weight(lambda c: losses.focal(c.options.gamma)),
    CLASS_WEIGHT | {"gamma": 1.0},
    trains_first="mcw_focal",
)

class_weight_ldam = Recipe(
    "meta-class-weight, margins on a cosine head",
    _meta_class_weight(
        lambda c: losses.ldam(c.counts, c.options.max_margin, c.options.scale),
        # The scaled cosines without margins: the cross-entropy of this head.
        lambda c: losses.ldam(c.counts, 0.0, c.options.scale),
        scaled,
    ),
    CLASS_WEIGHT | {"max_margin": 0.5, "scale": 30.0},
    trains_first="mcw_ldam",
    head=CosineHead,
)


def _metasaug(loss):
    def stages(c: Context):
        def make(model, optimizer, axis_name):
            return metasaug(
                model,
                optimizer,
                effective_number_weights(c.counts, c.options.beta),
                c.total_steps(c.first),
                virtual_learning_rate=c.learning_rate(c.first),
                loss=c.smoothed(c.first, loss(c)),
                start=c.step_at(c.first, c.options.start),
                strength=c.options.strength,
                covariance=c.options.covariance,
                meta_batch=c.options.meta_batch,
                axis_name=axis_name,
            )

        return [c.stage(make, augment_meta=c.options.augment_meta)]

    return stages


# A full matrix a class, which large sets cannot hold: "diagonal" there, as in its authors' program.
AUGMENTATION = AUGMENTED | {"beta": 0.9999, "start": 0.8, "strength": 0.25, "covariance": "full"}

augmentation = Recipe(
    "MetaSAug, cross-entropy",
    _metasaug(lambda c: losses.cross_entropy),
    AUGMENTATION,
    trains_first="metasaug_ce",
    head=LinearHead,
)

augmentation_focal = Recipe(
    "MetaSAug, focal loss",
    _metasaug(lambda c: losses.focal(c.options.gamma)),
    AUGMENTATION | {"gamma": 1.0},
    trains_first="metasaug_focal",
    head=LinearHead,
)

augmentation_ldam = Recipe(
    "MetaSAug, margins",
    _metasaug(lambda c: losses.ldam(c.counts, c.options.max_margin, scale=1.0)),
    AUGMENTATION | {"max_margin": 0.5},
    trains_first="metasaug_ldam",
    head=LinearHead,
)


def _balanced_meta_softmax(c: Context):
    section = c.second

    def make(model, optimizer, axis_name):
        return balanced_meta_softmax(
            model,
            optimizer,
            optax.adam(c.options.rate_learning_rate),
            c.counts,
            virtual_learning_rate=c.learning_rate(section),
            meta_batch=c.options.meta_batch,
            trainable=section.trainable,
            batch_norm=section.batch_norm,
            axis_name=axis_name,
        )

    return [c.erm_stage(), c.stage(make, section)]


learned_sampling = Recipe(
    "balanced softmax on the head, with learned sampling rates of the classes",
    _balanced_meta_softmax,
    {"meta_batch": 512, "rate_learning_rate": 0.01},
    second={},
    trains_first="cross-entropy",
)
