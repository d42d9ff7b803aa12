"""What a balanced meta set gives by itself: heads found on its features alone."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.checks import check_number
from otrw_jax.losses import cross_entropy
from otrw_jax.methods.base import Examples, Method, TrainingData
from otrw_jax.methods.heads.closed_form import nearest_class_mean, with_head
from otrw_jax.methods.meta.meta_loss import require_meta_set
from otrw_jax.methods.reading import ROWS, evaluated_features
from otrw_jax.models.model import Model
from otrw_jax.ot.measures import require_every_class


def meta_centroids(model: Model, num_classes: int, *, axis_name: str | None = None) -> Method:
    """Cosines of the features and the mean features of each class of the meta set.

    These means are the prototypes of eq. 12 of Guo et al. 2022, here as the classifier itself;
    `nearest_class_mean` is the same with the training set.

    Args:
        model: the network.
        num_classes: K.
        axis_name: mapped axis over which the batch is spread.

    Raises:
        ValueError: from `init`, no meta set, or a class without meta example.
    """
    method = nearest_class_mean(model, num_classes, axis_name=axis_name)

    def init(key, variables, data):
        meta = _require_classes("meta_centroids", data, num_classes)
        return method.init(key, variables, data.replace(train=meta))

    return method._replace(init=init, reads_inputs=False)


def meta_logistic(
    model: Model,
    num_classes: int,
    l2: float = 1.0,
    *,
    max_iterations: int = 500,
    tolerance: float = 1e-6,
    axis_name: str | None = None,
) -> Method:
    """Logistic regression on the features of the meta set, in evaluation mode, and nothing else.

    The new head is `{"kernel": [d k], "bias": [k]}`; see `fit_logistic`.

    Args:
        model: the network.
        num_classes: K.
        l2: as in `fit_logistic`.
        max_iterations: likewise.
        tolerance: likewise.
        axis_name: mapped axis over which the batch is spread.

    Raises:
        ValueError: l2 is not positive, `max_iterations` is less than 1 or `tolerance` is negative;
            from `init`, no meta set, or a class without meta example.
    """
    check_number("meta_logistic", "l2", l2, above=0)
    check_number("meta_logistic", "max_iterations", max_iterations, least=1, whole=True)
    check_number("meta_logistic", "tolerance", tolerance, least=0)
    features = evaluated_features(model)

    def head_of(variables: PyTree, data: TrainingData) -> dict[str, Array]:
        meta = _require_classes("meta_logistic", data, num_classes)
        z, labels = features(variables, meta), jnp.asarray(meta.labels)
        return fit_logistic(
            z, labels, num_classes, l2, max_iterations=max_iterations, tolerance=tolerance
        )

    def logits(head, z):
        return z @ head["kernel"] + head["bias"][None, :]

    return with_head(model, num_classes, head_of, logits, axis_name)


@partial(jax.jit, static_argnames=("num_classes", "max_iterations"))
def fit_logistic(
    z: Float[Array, "n d"],
    labels: Int[Array, "n"],
    num_classes: int,
    l2: float = 1.0,
    *,
    max_iterations: int = 500,
    tolerance: float = 1e-6,
) -> dict[str, Array]:
    """Minimises `Σ_i ℓ_i + l2/2 ‖kernel‖²`, ℓ the cross-entropy, by L-BFGS from zero.

    That is the objective of scikit-learn's LogisticRegression with C = 1 / l2 (2 / l2 for two
    classes, where it keeps the difference of the two class vectors alone). The bias is not
    regularised; the features are centred within, which changes nothing but the conditioning.

    Args:
        z: features, `[n, d]`.
        labels: `[n]`.
        num_classes: K.
        l2: factor of the regularisation.
        max_iterations: bound on the iterations.
        tolerance: ends once the norm of the objective's gradient, over n, is no more.

    Returns:
        `{"kernel": [d k], "bias": [k]}`.
    """
    count, width = z.shape
    mean = jnp.mean(z, axis=0)
    z = z - mean[None, :]
    solver = optax.lbfgs()
    # Of many examples the logits of so many at once, which the gradient forms again.
    whole = count - count % ROWS if count > ROWS else 0
    parts = jax.tree.map(
        lambda x: x[:whole].reshape(whole // ROWS, ROWS, *x.shape[1:]), (z, labels)
    )

    def total_loss(head, z, labels):
        return jnp.sum(cross_entropy(z @ head["kernel"] + head["bias"][None, :], labels))

    def objective(head):
        loss = total_loss(head, z[whole:], labels[whole:])
        if whole:
            of_rows = jax.checkpoint(partial(total_loss, head))
            loss += jnp.sum(jax.lax.map(lambda rows: of_rows(*rows), parts))
        return (loss + 0.5 * l2 * jnp.sum(head["kernel"] ** 2)) / count

    value_and_grad = optax.value_and_grad_from_state(objective)

    def unfinished(carry):
        step, _, state = carry
        norm = optax.tree.norm(optax.tree.get(state, "grad"))
        return (step == 0) | ((step < max_iterations) & (norm > tolerance))

    def iteration(carry):
        step, head, state = carry
        value, gradient = value_and_grad(head, state=state)
        updates, state = solver.update(
            gradient, state, head, value=value, grad=gradient, value_fn=objective
        )
        return step + 1, optax.apply_updates(head, updates), state

    dtype = jnp.promote_types(z.dtype, jnp.float32)
    start = {
        "kernel": jnp.zeros((width, num_classes), dtype),
        "bias": jnp.zeros(num_classes, dtype),
    }
    _, head, _ = jax.lax.while_loop(unfinished, iteration, (0, start, solver.init(start)))
    return {**head, "bias": head["bias"] - mean @ head["kernel"]}


def _require_classes(method: str, data: TrainingData, num_classes: int) -> Examples:
    meta = require_meta_set(method, data)
    require_every_class(meta.labels, num_classes)
    return meta
