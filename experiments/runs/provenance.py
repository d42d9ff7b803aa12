"""Where a result comes from: versions, and a device by a name that tells machines apart."""

import os
import pathlib
import platform
from importlib import metadata

import jax

import otrw_jax
from experiments.cli.compilation import fusions


def provenance() -> dict:
    """Versions and device that a result comes from."""
    packages = ("jax", "jaxlib", "flax", "optax", "ott-jax", "orbax-checkpoint")
    return {
        "versions": {"python": platform.python_version(), "otrw_jax": otrw_jax.__version__}
        | {name: metadata.version(name) for name in packages},
        "device": device_name(),
    }


def device_name() -> str:
    """The device by a name that tells machines apart, as "cpu: AMD EPYC 7763, 2 cores".

    With XLA's fused kernels, which round in a way of their own, these stand behind it.
    """
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{device.platform}: {device.device_kind}"
    fused = f", fused {fusions()}" if fusions() else ""
    return f"cpu: {cpu_model()}, {cores()} core{'s' if cores() > 1 else ''}{fused}"


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
