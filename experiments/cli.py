"""How a script starts, and how it ends where something is wrong."""

import os
import sys
from collections.abc import Callable

import absl.logging
import jax
from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's config.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "The run directory.")
MARKDOWN = flags.DEFINE_string("markdown", None, "Document whose section is rewritten.")
SEEDS = flags.DEFINE_list("seeds", [], "Subset and training seeds; by default the script's own.")
RECORDS = flags.DEFINE_string("records", "results", "Folder of the records kept of runs.")
DEBUG = flags.DEFINE_bool("debug", False, "Show whole tracebacks and the libraries' own messages.")


def run_app(main: Callable[[list[str]], None], *required: str) -> None:
    """Runs a script's main; an error that its user can mend ends in one sentence.

    Args:
        main: called with the arguments that are not flags.
        required: names of the flags that must be given.
    """
    flags.mark_flags_as_required(required)

    def quiet_main(argv):
        if not DEBUG.value:
            absl.logging.set_verbosity(absl.logging.FATAL)
        try:
            main(argv)
        except (ValueError, ArithmeticError, OSError, RuntimeError) as error:
            if DEBUG.value:
                raise
            _end(f"{type(error).__name__}: {' '.join(str(error).split())}")

    app.run(quiet_main, flags_parser=_parse)


def seeds(default: int) -> list[int]:
    """The seeds of `--seeds`, each once; where none are given, the first so many."""
    try:
        return list(dict.fromkeys(int(seed) for seed in SEEDS.value)) or list(range(default))
    except ValueError as error:
        given = ",".join(SEEDS.value)
        raise ValueError(f"--seeds={given} must be whole numbers, as in 0,1,2.") from error


def _end(sentence: str):
    if jax.process_count() == 1:
        sys.exit(sentence)
    # At once: an orderly end would wait for the other processes, which wait for this one.
    print(f"process {jax.process_index()}: {sentence}", file=sys.stderr, flush=True)
    os._exit(1)


def _parse(argv):
    """Parses flags; a config that does not load or has no such field ends in its last sentence."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        text = str(error.args[0] if error.args else error).replace("\\'", "'")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if isinstance(error, AttributeError | KeyError):
            field = " ".join(" ".join(lines).replace("\\n", " ").split())
            sys.exit(f"The config has no field {field.strip(chr(34)).rstrip('.')}")
        sys.exit(lines[-1])
