"""The passes of a step that learns weights by OT, in the order of Algorithms 1 and 2."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PyTree

from otrw_jax.methods.base import (
    Batch,
    Examples,
    Metrics,
    devices_on,
    everywhere,
    here,
    present,
    trains_backbone,
)
from otrw_jax.methods.ot.problem import OTProblem, atoms_before_network, cost_of, measure_of
from otrw_jax.methods.ot.refresh import eval_features
from otrw_jax.methods.part import LossPass, Part, add_cross_entropy
from otrw_jax.methods.virtual_step import virtual_step
from otrw_jax.ot.entropic import Convergence, EntropicOT, ot_loss_and_convergence
from otrw_jax.ot.measures import Measure

Problem = Callable[[Float[Array, "n"]], tuple[Float[Array, "n m"], Measure]]
"""From weights of the n examples of an OT problem to their cost and the measure Q."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the passes of a step are given, the same at every step.

    Attributes:
        part: the network, and what of it is trained.
        config: the OT problem.
        num_classes: number of classes K.
        problem_axis: mapped axis of the devices that share one OT problem; None where each has its
            own, or there is one device.
        mean_of_problems: whether the objective is the mean over the problems of the devices.
    """

    part: Part
    config: OTProblem
    num_classes: int
    problem_axis: str | None
    mean_of_problems: bool = False


def virtual_network(
    setting: Setting, now: LossPass, weights: Float[Array, "n"]
) -> tuple[PyTree, Float[Array, "b d"] | None]:
    """Step (a): the network that the OT problem sees, after a virtual step where there is one.

    Returns:
        Its variables, and the batch's features where the loss pass has given them.
    """
    config, trained = setting.config, now.trained
    variables = now.part.join(trained, now.rest)
    if config.features == "virtual" and config.uses_features and trains_backbone(trained):
        gradient = weighted_gradient(setting, now, weights)
        moved = virtual_step(trained, gradient, config.virtual_learning_rate)
        return now.part.join(moved, now.rest), None
    if config.features != "loss_pass" and config.batch_norm:
        return variables, None
    return variables, now.features


def batch_problem(
    setting: Setting,
    network: tuple[PyTree, Float[Array, "b d"] | None],
    state: Any,
    batch: Batch,
    meta: Examples | None,
) -> tuple[Float[Array, "n m"], Measure]:
    """Between (a) and (b): the cost of the OT problem's examples, and the measure Q.

    Args:
        setting: of the step.
        network: of `virtual_network`.
        state: has fields `step` and `key`, by which a random measure is drawn, and `meta_features`
            and `meta_labels`.
        batch: of this device.
        meta: the meta set.
    """
    config, axis, (variables, features) = setting.config, setting.problem_axis, network
    key = jax.random.fold_in(jax.random.fold_in(state.key, 0), state.step)
    labels = everywhere(batch.labels, axis)
    atoms, atom_labels = state.meta_features, state.meta_labels
    if config.uses_features:
        model = setting.part.model
        if config.meta_features == "step":
            examples = atoms_before_network(config, present(meta), setting.num_classes)
            atoms = eval_features(model, variables, examples.inputs)
            atom_labels = examples.labels
        if features is None:
            features = eval_features(model, variables, batch.inputs)
        features = everywhere(features, axis)
    measure = measure_of(config, key, atoms, atom_labels, setting.num_classes)
    return cost_of(config, features, labels, measure), measure


def ot_objective(
    config: OTProblem,
    problem: Problem,
    weights: Float[Array, "n"],
    mass: Callable[[Float[Array, "n"]], Float[Array, "n"]] = lambda weights: weights,
) -> Callable[[Float[Array, "n"]], tuple[Float[Array, ""], Convergence]]:
    """What step (b) descends: the OT loss of weights, and how far the solver came.

    Args:
        config: the OT problem.
        problem: as the virtual network sees it.
        weights: the present ones, whose problem is held fixed unless `config.second_order` is set.
        mass: from weights to probabilities.
    """
    fixed = None if config.second_order else problem(weights)

    def objective(weights):
        cost, measure = problem(weights) if fixed is None else fixed
        return ot_loss_and_convergence(mass(weights), cost, measure.weights, ot=config.ot)

    return objective


def network_step(
    setting: Setting, now: LossPass, state: Any, weights: Float[Array, "n"], meta: Examples | None
) -> Any:
    """Step (c): the state after a step of the network with the weighted losses."""
    gradient, after = weighted_gradient(setting, now, weights), now.after
    factor = setting.config.meta_cross_entropy
    if factor:
        rest = {**now.rest, "state": after}
        gradient, after = add_cross_entropy(
            now.part, factor, gradient, now.trained, rest, present(meta)
        )
    return now.part.descend(state, gradient, after)


def weighted_gradient(setting: Setting, now: LossPass, weights: Float[Array, "n"]) -> PyTree:
    """Gradient of the batch's weighted loss, from the one forward pass; for (a) and for (c)."""
    own = here(weights, setting.problem_axis)
    if setting.config.reduction == "mean":
        own = own / now.size
    if setting.mean_of_problems:
        own = own / devices_on(now.part.axis_name)
    return now.gradient(own.astype(now.losses.dtype))


def ot_metrics(
    value: Float[Array, ""], convergence: Convergence, ot: EntropicOT, axis_name: str | None = None
) -> Metrics:
    """The OT loss of a step's problem, its marginal error, and whether it did not converge.

    A threshold of zero asks for a number of iterations, not for convergence, and has no such share.

    Args:
        value: the loss.
        convergence: how far the solver came.
        ot: how it was solved.
        axis_name: mapped axis of devices that have a problem each, for the mean over them.
    """
    metrics = {"ot_loss": value, "ot_marginal_error": convergence.marginal_error}
    if ot.threshold > 0:
        metrics["ot_unconverged"] = jnp.where(convergence.converged, 0.0, 1.0)
    if axis_name is not None:
        metrics = jax.lax.pmean(metrics, axis_name)
    return {name: (mean, jnp.ones_like(mean)) for name, mean in metrics.items()}
