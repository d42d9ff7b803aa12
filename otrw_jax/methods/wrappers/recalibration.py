"""Batch statistics estimated anew, with the parameters left as they are."""

import jax

from otrw_jax.losses import cross_entropy
from otrw_jax.methods.base import Method, check_data, classification_metrics
from otrw_jax.methods.part import untrained
from otrw_jax.models.model import Model
from otrw_jax.samplers import class_power, sampled


def recalibration(model: Model, num_classes: int, *, axis_name: str | None = None) -> Method:
    """Passes class-balanced batches through the network, so that its running statistics follow.

    Zhong et al., Improving Calibration for Long-Tailed Recognition, CVPR 2021, section 3.3 (shift
    learning on batch normalisation): statistics of the long-tailed data are not those of the
    balanced data that a second stage sees.

    Args:
        model: the network.
        num_classes: K, each drawn alike.
        axis_name: mapped axis over which the batch is spread.

    Raises:
        ValueError: from `init`, the network keeps no statistics.
    """

    def init(key, variables, data):
        del key
        check_data(model, variables, data, num_classes)
        if not jax.tree.leaves(variables["state"]):
            raise ValueError(
                "recalibration: the network keeps no batch statistics; take one with batch "
                "normalisation or leave recalibration out."
            )
        return untrained(variables)

    def step(state, batch, meta):
        del meta
        params = state.variables["params"]
        z, model_state = model.features(state.variables, batch.inputs, True)
        logits = model.logits(params["head"], z)
        losses = cross_entropy(logits, batch.labels)
        metrics = classification_metrics(losses, logits, batch.labels, axis_name)
        variables = {"params": params, "state": model_state}
        return state.replace(step=state.step + 1, variables=variables), metrics

    return sampled(Method(init, step), class_power(num_classes, 0.0))
