"""Methods that take no gradient step: variables found at the start, logits read in another way."""

from collections.abc import Callable

from jax import Array
from jaxtyping import Float, PyTree

from otrw_jax.losses import cross_entropy
from otrw_jax.methods.base import Method, TrainingData, check_data, classification_metrics
from otrw_jax.methods.part import untrained
from otrw_jax.models.model import Model

Logits = Callable[[PyTree, Float[Array, "b d"]], Float[Array, "b k"]]


def corrected(
    model: Model,
    *,
    logits: Logits | None = None,
    correct: Callable[[Float[Array, "n k"]], Float[Array, "n k"]] | None = None,
    axis_name: str | None = None,
) -> Method:
    """Leaves the network as it is, and its logits to a correction after training.

    The corrections of `otrw_jax.posthoc` run as a stage in this way.

    Args:
        model: the network.
        logits: `Method.logits`.
        correct: `Method.correct`; the metrics of a batch do not see it.
        axis_name: mapped axis over which the batch is spread.
    """
    return without_training(
        model,
        lambda variables, data: variables,
        logits=logits,
        correct=correct,
        axis_name=axis_name,
    )


def without_training(
    model: Model,
    variables_of: Callable[[PyTree, TrainingData], PyTree],
    *,
    num_classes: int | None = None,
    logits: Logits | None = None,
    correct: Callable[[Float[Array, "n k"]], Float[Array, "n k"]] | None = None,
    axis_name: str | None = None,
) -> Method:
    """A method whose `init` does all its work, and whose steps measure batches and nothing else.

    Args:
        model: the network; it sees the batches in evaluation mode.
        variables_of: `(variables, data) -> variables`, done once.
        num_classes: K of the method, where it is given one.
        logits: `Method.logits`.
        correct: `Method.correct`.
        axis_name: mapped axis over which the batch is spread.
    """
    read = model.logits if logits is None else logits

    def init(key, variables, data):
        del key
        check_data(model, variables, data, num_classes)
        return untrained(variables_of(variables, data))

    def step(state, batch, meta):
        del meta
        z, _ = model.features(state.variables, batch.inputs, False)
        batch_logits = read(state.variables["params"]["head"], z)
        losses = cross_entropy(batch_logits, batch.labels)
        metrics = classification_metrics(losses, batch_logits, batch.labels, axis_name)
        return state.replace(step=state.step + 1), metrics

    return Method(init, step, logits=logits, correct=correct)
