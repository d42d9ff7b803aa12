"""Every method over a model, small and quick: what all of them must do is tested on these."""

import numpy as np
import optax

from otrw_jax import losses
from otrw_jax.methods.erm import erm
from otrw_jax.methods.heads.adapters import adapted, disalign, lws
from otrw_jax.methods.heads.closed_form import nearest_class_mean, tau_normalised
from otrw_jax.methods.heads.meta_set import meta_logistic
from otrw_jax.methods.heads.oltr import oltr
from otrw_jax.methods.meta.balanced_meta_softmax import balanced_meta_softmax
from otrw_jax.methods.meta.class_weight import meta_class_weight
from otrw_jax.methods.meta.l2rw import l2rw
from otrw_jax.methods.meta.learned_weights import learned_weights
from otrw_jax.methods.meta.meta_weight_net import meta_weight_net
from otrw_jax.methods.meta.metasaug import metasaug
from otrw_jax.methods.ot.reweight import ot_reweight
from otrw_jax.methods.ot.weight_net import ot_weight_net
from otrw_jax.methods.presets import PRESETS
from otrw_jax.methods.wrappers.averaging import averaged
from otrw_jax.methods.wrappers.corrected import corrected
from otrw_jax.ot.nets import MLPWeightNet

from .problem import COUNTS, NUM_CLASSES

RATE = 0.1


def ot(preset):
    config = PRESETS[preset](NUM_CLASSES)
    return lambda model: ot_reweight(
        model, optax.sgd(RATE, momentum=0.9), optax.sgd(0.1), NUM_CLASSES, config
    )


def adapter_of(adapter, with_head):
    def make(model):
        return adapted(
            model,
            adapter,
            lambda model, trainable: erm(model, optax.sgd(RATE), trainable=trainable),
            with_head=with_head,
        )

    return make


SGD = optax.sgd(RATE)
WEIGHTS = losses.effective_number_weights(np.array(COUNTS))
METHODS = {
    "erm": lambda model: erm(model, optax.adam(RATE)),
    "head": lambda model: erm(model, SGD, trainable="head/.*", meta_cross_entropy=1.0),
    "paper": ot("paper"),
    "released": ot("released"),
    "global": ot("global"),
    "net": lambda model: ot_weight_net(model, SGD, MLPWeightNet(4), SGD, NUM_CLASSES),
    "l2rw": lambda model: l2rw(model, SGD),
    "mwn": lambda model: meta_weight_net(model, SGD, SGD, virtual_learning_rate=RATE, hidden=4),
    "hu": lambda model: learned_weights(model, optax.adam(RATE), virtual="optimizer"),
    "mcw": lambda model: meta_class_weight(model, SGD, WEIGHTS, start=0),
    "metasaug": lambda model: metasaug(model, SGD, WEIGHTS, 4, virtual_learning_rate=RATE),
    "bms": lambda model: balanced_meta_softmax(
        model, SGD, SGD, np.array(COUNTS), virtual_learning_rate=RATE
    ),
    "oltr": lambda model: oltr(model, SGD, SGD, NUM_CLASSES),
    "lws": adapter_of(lws(), False),
    "lws with head": adapter_of(lws(), True),
    "disalign": adapter_of(disalign(), False),
    "averaged": lambda model: averaged(erm(model, SGD), 0.9),
    "tau": lambda model: tau_normalised(model, NUM_CLASSES),
    "ncm": lambda model: nearest_class_mean(model, NUM_CLASSES),
    "corrected": corrected,
    "meta_logistic": lambda model: meta_logistic(model, NUM_CLASSES),
}
