"""The machine that is measured, and the document's section of what was measured on it."""

import importlib.util
import os
import platform
from importlib import metadata

import jax

from experiments.runs.provenance import cores, cpu_model

PACKAGES = (
    "grain",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "ott-jax",
    "lineax",
    "numpy",
    "pillow",
    "simplejpeg",
)


def machine() -> dict:
    """What the numbers depend on: processor, device, load, versions."""
    device = jax.devices()[0]
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "device": f"{device.platform}: {device.device_kind}",
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES}
        | ({"torch": metadata.version("torch")} if importlib.util.find_spec("torch") else {}),
    }


def section(title: str, command: str, machine: dict, parts: list[str]) -> str:
    """The whole text: title, command, machine, then the parts."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    about = (
        f"Printed by `{command}` on {machine['cpu']}, {machine['cores']} cores, device "
        f"{machine['device']}; {versions}. Processes waiting for a core at the start (load of the "
        f"last minute): {machine['load']:.1f}. Times are medians, ratios those "
        "of the ratios of neighbouring repeats."
    )
    return "\n\n".join([f"## {title}", about, *parts])
