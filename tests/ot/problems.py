"""Random entropic OT problems of the method's kind."""

import jax.numpy as jnp
import numpy as np


def make_problem(n, m, cost="combined", weights="random", seed=0, classes=None):
    """Weights, meta weights and cost, in float64 (the cost with float32 digits)."""
    rng = np.random.default_rng(seed)
    train, meta = (np.abs(rng.normal(size=(size, 16))) for size in (n, m))
    train_labels = rng.choice(np.arange(min(m, 10)) if classes is None else classes, n)
    label = (train_labels[:, None] != np.arange(m)[None, :] % 10).astype(float)
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (train, meta)]
    feature = 1 - unit[0] @ unit[1].T
    matrix = {"label": label, "feature": feature, "combined": feature + label}[cost]
    a = np.exp(3 * rng.normal(size=n)) if weights == "peaked" else rng.dirichlet(np.ones(n))
    if weights == "zeros":
        a[::3] = 0
    return a / a.sum(), np.full(m, 1 / m), np.float64(np.float32(matrix))


def single(*arrays):
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


def separated_problem(n, m, kind="long tail", cost="combined", seed=0, noise=0.3):
    """As `make_problem`, with features that a good network gives: classes far apart.

    Such problems take hundreds of Sinkhorn iterations: a class holds another mass than its atom,
    and hardly anything links it to the others.

    Args:
        kind: counts of the classes in the batch: "balanced", "long tail", "absent" (half of the
            classes have no example), or what weights are "peaked" or zero in a third, "zeros".
        noise: of the features around their class's centre, in units of the centres' spread.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(m, 64))

    def features(labels):
        z = np.maximum(centres[labels] + noise * rng.normal(size=(*labels.shape, 64)), 0)
        return z / np.linalg.norm(z, axis=-1, keepdims=True)

    share = np.ones(m) if kind == "balanced" else 100.0 ** (-np.arange(m) / max(m - 1, 1))
    if kind == "absent":
        share[rng.permutation(m)[m - m // 2 :]] = 0
    labels = rng.choice(m, n, p=share / share.sum())
    matrix = (labels[:, None] != np.arange(m)[None, :]).astype(float)
    if cost == "combined":
        prototypes = features(np.tile(np.arange(m), (10, 1))).mean(0)
        prototypes = prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)
        matrix = matrix + 1 - features(labels) @ prototypes.T
    a = np.exp(3 * rng.normal(size=n)) if kind == "peaked" else rng.dirichlet(np.ones(n))
    if kind == "zeros":
        a[::3] = 0
    return a / a.sum(), np.full(m, 1 / m), np.float64(np.float32(matrix))
