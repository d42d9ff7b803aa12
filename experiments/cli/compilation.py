"""How a script's programs are compiled: kept for its next start, and fused on CPUs."""

import os
import pathlib
import subprocess
import sys

import jax
import jaxlib.version
from absl import flags

KEEP = flags.DEFINE_bool(
    "keep_compiled",
    True,
    "Keep compiled programs in the user's cache folder, or in that of JAX_COMPILATION_CACHE_DIR.",
)
FAST_CPU = flags.DEFINE_bool(
    "fast_cpu",
    False,
    "Fuse more on CPUs, where convolutional networks with large batches then train faster; "
    "results differ by rounding.",
)
flags.disclaim_key_flags()

FUSION = "--xla_cpu_experimental_ynn_fusion_type"
"""XLA's option for what its CPU backend gives to a library of fused kernels."""
FUSED = f"{FUSION}=LIBRARY_FUSION_TYPE_ELTWISE,LIBRARY_FUSION_TYPE_REDUCE"
SHORTEST = 0.1
"""Seconds of compilation from which a program is kept; JAX's own is 1, longer than many take."""


def set_up(keep: bool) -> None:
    """Does what the flags say; before anything is compiled, and once a process.

    Args:
        keep: whether programs may be taken from those kept. Not where compilation itself is timed
            or programs are looked into: one that is kept has the names of another's lines.

    Raises:
        ValueError: this jaxlib cannot fuse.
    """
    if FAST_CPU.value:
        fuse()
    if keep and KEEP.value:
        keep_programs()
    else:
        jax.config.update("jax_enable_compilation_cache", False)


def keep_programs() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX has been given another."""
    # JAX makes the attribute as it runs.
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = (
            f"compiled programs are not kept: {folder}: {(error.strerror or str(error)).lower()}."
        )
        print(text, file=sys.stderr, flush=True)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)


def cache_folder() -> pathlib.Path:
    """The folder of compiled programs, in XDG_CACHE_HOME, by default `~/.cache`."""
    given = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The standard of the variable has it that what is not absolute is to be ignored.
    base = given if given.is_absolute() else pathlib.Path(os.path.expanduser("~/.cache"))
    return base / "otrw_jax" / "compiled"


def fuse() -> None:
    """Sets XLA's option of fused kernels on CPUs; what XLA_FLAGS says of it already stands.

    Raises:
        ValueError: this jaxlib does not know it.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if FUSION in given:
        return
    changed = f"{given} {FUSED}".strip()
    if not _starts_with(changed):
        raise ValueError(
            f"--fast_cpu sets {FUSED}, with which jaxlib {jaxlib.version.__version__} does not "
            "start; leave --fast_cpu out, or take a jaxlib that knows it, such as 0.10.2."
        )
    os.environ["XLA_FLAGS"] = changed


def fusions() -> str:
    """What is fused on CPUs, as XLA_FLAGS says, for the name of a device; empty if nothing."""
    for flag in reversed(os.environ.get("XLA_FLAGS", "").split()):
        name, _, value = flag.partition("=")
        if name == FUSION:
            return value.replace("LIBRARY_FUSION_TYPE_", "").replace(",", "+").lower()
    return ""


def _starts_with(xla_flags: str) -> bool:
    """Whether a process of its own compiles under these flags: one unknown ends it at once."""
    program = "import jax; jax.jit(lambda x: x + 1)(1.0)"
    environment = os.environ | {"XLA_FLAGS": xla_flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    return done.returncode == 0
