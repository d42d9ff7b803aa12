"""Random OT problems of the method's kind, and their exact gradients in float64."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy.special import logsumexp

from otrw_jax.ot.costs import combined_cost, feature_cost, label_cost

DIMENSION = 64
IMBALANCE_FACTOR = 100
META_PER_CLASS = 10

Cost = Literal["combined", "feature", "label"]
COSTS: tuple[Cost, ...] = ("combined", "feature", "label")

Kind = Literal["clustered", "separated", "balanced", "absent"]
_NOISE = {"clustered": 1.0, "separated": 0.2, "balanced": 0.2, "absent": 0.2}


class Problem(NamedTuple):
    """Weights `[n]` of the examples and cost `[n, m]`, in float32; the atoms weigh the same."""

    weights: Float[Array, "n"]
    cost: Float[Array, "n m"]


def clustered_problem(
    n: int, m: int, seed: int, cost: Cost = "combined", kind: Kind = "clustered"
) -> Problem:
    """A batch of a training set against one prototype a class.

    Features are rectified normal clusters, one a class; prototypes are means of ten features;
    weights are uniform on the simplex.

    Args:
        n: examples in the batch.
        m: classes.
        seed: of everything random.
        cost: which of the three costs.
        kind: "clustered", labels of an exponential profile and features as noisy as their centres
            differ; "separated", features a fifth as noisy, as a good network gives them;
            "balanced", such features, and every class as likely; "absent", such features, and a
            profile that every second class has no part in.
    """
    rng = np.random.default_rng(seed)
    matrix = next(_costs(rng, n, m, 1, cost, kind))
    weights = rng.dirichlet(np.ones(n))
    return Problem(jnp.asarray(weights, jnp.float32), matrix)


def batch_costs(n: int, m: int, count: int, seed: int, cost: Cost) -> list[Float[Array, "n m"]]:
    """Costs of successive batches of one training set, against the same prototypes."""
    return list(_costs(np.random.default_rng(seed), n, m, count, cost))


def _costs(rng, n, m, count, cost, kind="clustered"):
    centres = rng.normal(size=(m, DIMENSION))

    def features(labels):
        noise = rng.normal(size=(*labels.shape, DIMENSION))
        return np.maximum(centres[labels] + _NOISE[kind] * noise, 0)

    share = IMBALANCE_FACTOR ** (-np.arange(m) / max(m - 1, 1))
    if kind == "balanced":
        share = np.ones(m)
    elif kind == "absent" and m > 2:
        share[1::2] = 0
    first, second = np.flatnonzero(share)[:2]
    prototypes = None
    for _ in range(count):
        labels = rng.choice(m, n, p=share / share.sum())
        labels[:2] = first, second  # With one class alone the label cost is constant: no gradient.
        examples = features(labels)
        if prototypes is None:
            prototypes = features(np.tile(np.arange(m), (META_PER_CLASS, 1))).mean(0)
        match cost:
            case "combined":
                yield combined_cost(examples, labels, prototypes, np.arange(m))
            case "feature":
                yield feature_cost(examples, prototypes)
            case "label":
                yield label_cost(labels, np.arange(m))


def exact_gradient(problem: Problem, epsilon: float) -> Float[np.ndarray, "n"]:
    """The gradient of `<C, T>` in the weights, of mean zero, in float64.

    Sinkhorn iterations ended by Newton steps on the dual of the smaller side, then least squares
    on the optimality conditions.

    Args:
        problem: its weights are positive.
        epsilon: entropic regularisation.
    """
    weights, cost = (np.asarray(x, np.float64) for x in problem)
    atoms = np.full(cost.shape[1], 1 / cost.shape[1])
    if cost.shape[0] >= cost.shape[1]:
        gradient, _ = _both_gradients(weights / weights.sum(), atoms, cost, epsilon)
    else:
        _, gradient = _both_gradients(atoms, weights / weights.sum(), cost.T, epsilon)
    return gradient - gradient.mean()


def relative_error(gradient: Float[np.ndarray, "n"], exact: Float[np.ndarray, "n"]) -> float:
    """Norm of the difference of a gradient, less its mean, to the exact one, relative."""
    gradient = np.asarray(gradient, np.float64)
    difference = gradient - gradient.mean() - exact
    return float(np.linalg.norm(difference) / np.linalg.norm(exact))


def _both_gradients(a, b, cost, epsilon):
    def rows(g):
        return epsilon * (np.log(a) - logsumexp((g[None, :] - cost) / epsilon, axis=1))

    def plan_of(g):
        return np.exp((rows(g)[:, None] + g[None, :] - cost) / epsilon)

    g = np.zeros(len(b))
    for _ in range(100):
        f = rows(g)
        g = epsilon * (np.log(b) - logsumexp((f[:, None] - cost) / epsilon, axis=0))
    for _ in range(50):
        plan = plan_of(g)
        missing = b - plan.sum(0)
        if np.abs(missing).sum() < 1e-13:
            break
        system = np.diag(plan.sum(0)) - plan.T @ (plan / a[:, None])
        step = np.linalg.lstsq(system, missing, rcond=1e-15)[0]
        g = g + epsilon * step / max(1, np.abs(step).max())
    conditional = plan / a[:, None]
    row_cost = (cost * conditional).sum(1)
    system = np.diag(plan.sum(0)) - plan.T @ conditional
    right = (cost * plan).sum(0) - plan.T @ row_cost
    y = np.linalg.lstsq(system, right, rcond=1e-15)[0]
    return row_cost - conditional @ y, y
