"""The linear system behind the gradient of entropic OT, solved directly on its smaller side."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def solve_saddle(
    plan: Float[Array, "n m"], right_f: Float[Array, "n"], right_g: Float[Array, "m"]
) -> tuple[Float[Array, "n"], Float[Array, "m"]]:
    """Solves `[[diag(T1), T], [T', diag(T'1)]] [x; y] = [right_f; right_g]`, gauge y'b ~ 0.

    Eliminating the larger side leaves a weighted graph Laplacian of min(n, m) nodes, whose diagonal
    is taken as the sum of its off-diagonal entries: a sum of positive numbers, exact to rounding
    however weakly the classes are connected.
    """
    if plan.shape[0] < plan.shape[1]:
        y, x = solve_saddle(plan.T, right_g, right_f)
        return x, y
    rows, conditional, links = _eliminated(plan)
    y = solve_laplacian(links, right_g - jnp.matmul(conditional.T, right_f, precision="highest"))
    return right_f / rows - jnp.matmul(conditional, y, precision="highest"), y


def solve_for_cost(
    plan: Float[Array, "n m"], cost: Float[Array, "n m"]
) -> tuple[Float[Array, "n"], Float[Array, "m"]]:
    """`solve_saddle` for the right sides `(C * T) 1` and `(C * T)' 1`.

    What is left of them is, at a node, a sum over its links of link times a difference of costs.
    Taken link by link it is as small as the links are, and a node that hardly any mass links to the
    others has a solution within the range of the cost.
    """
    if plan.shape[0] < plan.shape[1]:
        y, x = solve_for_cost(plan.T, cost.T)
        return x, y
    _, conditional, links = _eliminated(plan)
    along = _off_diagonal(jnp.matmul((cost * plan).T, conditional, precision="highest"))
    y = solve_laplacian(links, along.sum(1) - along.sum(0))
    x = jnp.sum(cost * conditional, axis=1) - jnp.matmul(conditional, y, precision="highest")
    return x, y


def _eliminated(plan):
    """Row sums, rows scaled to one, and the links between columns that eliminating rows leaves."""
    rows = plan.sum(1)
    rows = jnp.where(rows > 0, rows, 1.0)
    conditional = plan / rows[:, None]
    return rows, conditional, links_of(plan, conditional)


def links_of(plan: Float[Array, "n m"], conditional: Float[Array, "n m"]) -> Float[Array, "m m"]:
    """Links between columns, zero on the diagonal: `plan' conditional`, whose rows sum to one."""
    links = jnp.matmul(plan.T, conditional, precision="highest")
    return _off_diagonal(0.5 * (links + links.T))


def _off_diagonal(matrix):
    return jnp.where(jnp.eye(matrix.shape[0], dtype=bool), 0.0, matrix)


def solve_laplacian(
    links: Float[Array, "k k"],
    right: Float[Array, "k"],
    ridge: float = 3e-6,
    refinements: int = 1,
) -> Float[Array, "k"]:
    """Solves `(diag(links 1) - links) y = right` for symmetric non-negative links, zero diagonal.

    Scaled to a unit diagonal; the constant direction is fixed by a rank-one term; a ridge keeps
    the factor positive definite where groups of nodes are not linked at all, and refinement takes
    its bias back where they are.
    """
    degree = links.sum(1)
    scale = 1 / jnp.sqrt(jnp.where(degree > 0, degree, 1.0))
    size = links.shape[0]
    kernel = 1 / scale
    kernel = kernel / jnp.linalg.norm(kernel)
    matrix = (
        jnp.eye(size, dtype=links.dtype)
        - scale[:, None] * links * scale[None, :]
        + kernel[:, None] * kernel[None, :]
    )
    right = scale * right
    factor = jax.scipy.linalg.cho_factor(matrix + ridge * jnp.eye(size, dtype=links.dtype))
    y = jax.scipy.linalg.cho_solve(factor, right)
    for _ in range(refinements):
        residual = right - jnp.matmul(matrix, y, precision="highest")
        y = y + jax.scipy.linalg.cho_solve(factor, residual)
    return scale * y
