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
    n, m = plan.shape
    if n < m:
        y, x = solve_saddle(plan.T, right_g, right_f)
        return x, y
    rows = plan.sum(1)
    rows = jnp.where(rows > 0, rows, 1.0)
    conditional = plan / rows[:, None]
    links = jnp.matmul(plan.T, conditional, precision="highest")
    links = jnp.where(jnp.eye(m, dtype=bool), 0.0, 0.5 * (links + links.T))
    y = solve_laplacian(links, right_g - jnp.matmul(conditional.T, right_f, precision="highest"))
    x = right_f / rows - jnp.matmul(conditional, y, precision="highest")
    return x, y


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
