"""The part of a network that a method trains: its passes, its gradients and its descent."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, PyTree

from otrw_jax.losses import PerExampleLoss, cross_entropy
from otrw_jax.methods.base import (
    Batch,
    Examples,
    Metrics,
    classification_metrics,
    global_sum,
    merge_params,
    split_params,
)
from otrw_jax.models.model import Model


@flax.struct.dataclass
class TrainState:
    """What a method's state holds at the least; those that learn more extend it.

    Attributes:
        step: steps taken.
        key: base key, into which each step folds its number; None where nothing is drawn.
        variables: the network's.
        opt_state: the optimiser's, of the trained parameters; None where none are trained.
    """

    step: Int[Array, ""]
    key: Array | None
    variables: PyTree
    opt_state: PyTree


State = TypeVar("State", bound=TrainState)


@dataclasses.dataclass(frozen=True)
class Part:
    """What every step of a method is given, and what every step does with it.

    A step splits the variables into `trained`, the trained parameters, and `rest`, the variables
    with None in their place. It differentiates functions of `trained` alone, so that nothing is
    propagated back through a frozen backbone.

    Attributes:
        model: the network.
        optimizer: of the trained parameters.
        trainable: which parameters are trained, as in `split_params`: a regular expression over
            their paths. Virtual steps move these alone.
        batch_norm: whether passes are in training mode (by the batch's statistics, which move the
            running ones; those of meta examples do not, but for the pass of `add_cross_entropy`) or
            in evaluation mode (by the running statistics, which stay as they are).
        axis_name: mapped axis over which the batch is spread; None where it is on one device.
    """

    model: Model
    optimizer: optax.GradientTransformation
    trainable: str = ".*"
    batch_norm: bool = True
    axis_name: str | None = None

    def start(
        self, key: Array | None, variables: PyTree, kind: type[Any] = TrainState, **own: Any
    ) -> Any:
        """A state before the first step.

        Args:
            key: base key, or None.
            variables: the network's.
            kind: class of the state, `TrainState` or one that extends it.
            own: the fields that it has beside those of `TrainState`.

        Raises:
            ValueError: as `split_params`.
        """
        trained, _ = self.split(variables)
        return kind(
            step=jnp.zeros((), jnp.int32),
            key=key,
            variables=variables,
            opt_state=self.optimizer.init(trained),
            **own,
        )

    def split(self, variables: PyTree) -> tuple[PyTree, PyTree]:
        """`(trained, rest)` of the variables; raises as `split_params`."""
        trained, frozen = split_params(variables["params"], self.trainable)
        return trained, {"params": frozen, "state": variables["state"]}

    def join(self, trained: PyTree, rest: PyTree) -> PyTree:
        """The variables that `split` took apart."""
        return {"params": merge_params(trained, rest["params"]), "state": rest["state"]}

    def outputs(
        self, trained: PyTree, rest: PyTree, inputs: PyTree
    ) -> tuple[Float[Array, "b d"], Float[Array, "b k"], PyTree]:
        """A pass: features, logits, and the state of the network after it."""
        variables = self.join(trained, rest)
        z, after = self.model.features(variables, inputs, self.batch_norm)
        return z, self.model.logits(variables["params"]["head"], z), after

    def losses(
        self, loss: PerExampleLoss, examples: Batch | Examples, trained: PyTree, rest: PyTree
    ) -> tuple[Float[Array, "b"], tuple[Float[Array, "b d"], Float[Array, "b k"], PyTree]]:
        """`(losses, (features, logits, state of the network after the pass))` of examples."""
        z, logits, after = self.outputs(trained, rest, examples.inputs)
        return loss(logits, examples.labels), (z, logits, after)

    def loss_pass(self, loss: PerExampleLoss, batch: Batch, variables: PyTree) -> "LossPass":
        """The pass of a batch by which a step weights its losses."""
        trained, rest = self.split(variables)

        def losses_of(trained):
            return self.losses(loss, batch, trained, rest)

        losses, pullback, (z, logits, after) = jax.vjp(losses_of, trained, has_aux=True)
        metrics = self.metrics(losses, logits, batch.labels)
        return LossPass(self, trained, rest, losses_of, pullback, losses, z, after, metrics)

    def metrics(
        self, losses: Float[Array, "b"], logits: Float[Array, "b k"], labels: Int[Array, "b"]
    ) -> Metrics:
        """`classification_metrics` over all devices."""
        return classification_metrics(losses, logits, labels, self.axis_name)

    def summed(self, tree: PyTree) -> PyTree:
        """The sum over all devices, such as that of gradients."""
        return global_sum(tree, self.axis_name)

    def mean_gradient(
        self, loss: PerExampleLoss, examples: Examples, trained: PyTree, rest: PyTree
    ) -> PyTree:
        """Gradient of the mean loss of examples that all devices hold, such as meta examples."""
        return jax.grad(lambda at: jnp.mean(self.losses(loss, examples, at, rest)[0]))(trained)

    def descend(self, state: State, gradient: PyTree, after: PyTree, **more: Any) -> State:
        """The state after a step of the optimiser.

        Args:
            state: before it.
            gradient: of the trained parameters, summed over devices.
            after: state of the network after the step.
            more: what else the optimiser is given.
        """
        trained, rest = self.split(state.variables)
        updates, opt_state = self.optimizer.update(gradient, state.opt_state, trained, **more)
        variables = self.join(optax.apply_updates(trained, updates), {**rest, "state": after})
        step = state.step + 1
        return dataclasses.replace(state, step=step, variables=variables, opt_state=opt_state)


class LossPass(NamedTuple):
    """A pass of a batch, and what its one forward pass serves; see `Part.loss_pass`.

    Attributes:
        part: what is trained.
        trained: the trained parameters.
        rest: the other variables.
        losses_of: `Part.losses` as a function of the trained parameters.
        pullback: from weights of the losses to the gradient of their weighted sum, of this
            device's examples.
        losses: of this device's examples, `[b]`.
        features: z of the pass, `[b, d]`.
        after: state of the network after the pass.
        metrics: of the batch.
    """

    part: Part
    trained: PyTree
    rest: PyTree
    losses_of: Callable[[PyTree], tuple[Float[Array, "b"], Any]]
    pullback: Callable[[Float[Array, "b"]], tuple[PyTree]]
    losses: Float[Array, "b"]
    features: Float[Array, "b d"]
    after: PyTree
    metrics: Metrics

    @property
    def size(self) -> Float[Array, ""]:
        """Number of the batch's examples of a class, over all devices."""
        return self.metrics["loss"][1]

    def gradient(self, weights: Float[Array, "b"]) -> PyTree:
        """∇ Σ_i w_i ℓ_i over the examples of all devices."""
        return self.part.summed(self.pullback(weights)[0])

    def slopes(self, direction: PyTree) -> Float[Array, "b"]:
        """⟨∇ℓ_i, g⟩ of each example's gradient with a direction, by one jvp.

        For the weights of a weighted sum Σ w_i ℓ_i the gradient through a virtual step is -α times
        these.
        """
        return jax.jvp(lambda at: self.losses_of(at)[0], (self.trained,), (direction,))[1]


def add_cross_entropy(
    part: Part, factor: float, gradient: PyTree, trained: PyTree, rest: PyTree, meta: Examples
) -> tuple[PyTree, PyTree]:
    """Adds the gradient of a factor of the mean cross-entropy of the whole meta set to another.

    Args:
        part: what is trained.
        factor: of the mean.
        gradient: of the trained parameters, summed over devices.
        trained: the trained parameters.
        rest: the other variables, with the state of the network after the pass of the batch.
        meta: the meta set, the same on all devices.

    Returns:
        The sum of the gradients, and the state of the network after the pass of the meta set.
    """

    def objective(trained):
        losses, (_, _, after) = part.losses(cross_entropy, meta, trained, rest)
        return factor * jnp.mean(losses), after

    of_meta, after = jax.grad(objective, has_aux=True)(trained)
    return jax.tree.map(jnp.add, gradient, of_meta), after


def untrained(variables: PyTree) -> TrainState:
    """The state of a method that trains no parameter and draws nothing, before its first step."""
    return TrainState(jnp.zeros((), jnp.int32), None, variables, None)


def at_step(value: Any, step: Int[Array, ""]) -> Any:
    """A number or array that may be a schedule, such as a learning rate, at a step."""
    return value(step) if callable(value) else value
