"""Compiled solutions and gradients of small problems, and how they are compared."""

import jax
import numpy as np

from otrw_jax.ot.entropic import EntropicOT, ot_loss, transport

from .problems import single

EPSILON = 0.1
PRECISE = EntropicOT(EPSILON, threshold=1e-6, max_iterations=2000)
ENVELOPE = EntropicOT(EPSILON, threshold=1e-6, max_iterations=2000, gradient="envelope")
value_and_gradients = jax.jit(jax.value_and_grad(ot_loss, argnums=(0, 1, 2)), static_argnames="ot")
solve = jax.jit(transport, static_argnames="ot")


def gradients_of(a, b, cost, ot=PRECISE):
    """Loss and its gradients in weights, cost and meta weights, by the library in float32."""
    a, b, cost = single(a, b, cost)
    value, gradients = value_and_gradients(a, cost, b, ot=ot)
    return float(value), *(np.asarray(g, np.float64) for g in gradients)


def tangents(a, count, rng):
    """Directions along the simplex that leave zero weights at zero."""
    directions = a * rng.normal(size=(count, len(a)))
    return directions - a * directions.sum(1, keepdims=True)


def assert_close(found, wanted, tolerance=1e-4):
    """Relative error in norm."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted)


SMALL = [(50, 2), (16, 10), (16, 100), (64, 10)]
GRADIENTS = ["implicit", "envelope", "unrolled"]
