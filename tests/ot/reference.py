"""Independent float64 reference of the entropic OT problem, in plain NumPy."""

import numpy as np
from scipy.special import logsumexp


def sinkhorn(a, b, cost, epsilon, iterations=20000, tolerance=1e-13):
    """Log-domain Sinkhorn to (near) machine precision; returns plan `[n, m]`, f, g.

    Where Sinkhorn is slow and m is small, Newton steps on the dual end it.
    """
    a, b, cost = (np.asarray(x, np.float64) for x in (a, b, cost))
    a, b = a / a.sum(), b / b.sum()
    f = np.zeros(len(a))
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)

    def rows(g):
        return epsilon * (log_a - logsumexp((g[None, :] - cost) / epsilon, axis=1))

    def plan_of(f, g):
        return np.exp((f[:, None] + g[None, :] - cost) / epsilon)

    for iteration in range(1, iterations + 1):
        g = epsilon * (log_b - logsumexp((f[:, None] - cost) / epsilon, axis=0))
        f = rows(g)
        plan = plan_of(f, g)
        if np.abs(plan.sum(0) - b).sum() < tolerance:
            break
        if iteration % 100 == 0 and len(b) <= 200 and b.all():
            newton = g
            for _ in range(20):
                plan = plan_of(rows(newton), newton)
                if np.abs(plan.sum(0) - b).sum() < tolerance:
                    return plan, rows(newton), newton
                conditional = plan / np.where(a > 0, a, 1)[:, None]
                system = np.diag(plan.sum(0)) - plan.T @ conditional  # Singular along ones.
                try:
                    step = np.linalg.solve(system + np.outer(b, b), b - plan.sum(0))
                except np.linalg.LinAlgError:  # No links between the columns: Sinkhorn goes on.
                    break
                newton = newton + epsilon * step / max(1, np.abs(step).max())
    return plan, f, g


def loss(a, b, cost, epsilon, **options):
    """`<C, T*>` in float64."""
    return float(np.sum(cost * sinkhorn(a, b, cost, epsilon, **options)[0]))


def regularised_value(a, b, cost, epsilon, **options):
    """`<C, T> - epsilon H(T)` at the optimum, with `H(T) = -sum T log T`."""
    plan = sinkhorn(a, b, cost, epsilon, **options)[0]
    positive = plan[plan > 0]
    return float(np.sum(cost * plan) + epsilon * np.sum(positive * np.log(positive)))


def finite_difference(a, b, cost, epsilon, direction, step=1e-5, value=loss, **options):
    """Central difference of a value along a direction of the simplex's tangent space."""
    ends = [value(a + s * step * direction, b, cost, epsilon, **options) for s in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)


def one_sided_difference(a, b, cost, epsilon, direction, step=1e-5, **options):
    """Forward difference of second order, for a direction that leaves the simplex's border."""
    start, middle, end = (
        loss(a + s * step * direction, b, cost, epsilon, **options) for s in (0, 1, 2)
    )
    return (4 * middle - 3 * start - end) / (2 * step)


def gradient(a, b, cost, epsilon, **options):
    """The implicit gradient in the weights, centred, by least squares on the smaller system.

    Written with conditional plans, so that weights of zero are right too.
    """
    cost = np.asarray(cost, np.float64)
    plan, f, g = sinkhorn(a, b, cost, epsilon, **options)
    by_row, by_column = (g[None, :] - cost) / epsilon, (f[:, None] - cost) / epsilon
    given_row = np.exp(by_row - logsumexp(by_row, axis=1, keepdims=True))
    given_column = np.exp(by_column - logsumexp(by_column, axis=0, keepdims=True))
    row_cost, column_cost = (cost * given_row).sum(1), (cost * given_column).sum(0)
    if len(a) < len(b):
        system = np.eye(len(a)) - given_row @ given_column.T
        x = np.linalg.lstsq(system, row_cost - given_row @ column_cost, rcond=1e-13)[0]
    else:
        columns = plan.sum(0)
        system = np.diag(columns) - plan.T @ given_row
        right = columns * column_cost - plan.T @ row_cost
        x = row_cost - given_row @ np.linalg.lstsq(system, right, rcond=1e-15)[0]
    return x - x.mean()
