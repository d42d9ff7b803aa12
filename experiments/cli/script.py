"""The flags that scripts share; how one starts, and how it ends where something is wrong."""

import gc
import os
import re
import signal
import sys
import types
from collections.abc import Callable

import absl.logging
import jax
from absl import app, flags
from ml_collections import config_flags

from experiments import end_at_once
from experiments.cli import compilation
from experiments.cli.help import asks_for_help, config_argument, missing_config, show_help
from experiments.configs.overrides import spelling
from experiments.configs.user_paths import expanded

INTERRUPTED, UNREAD = 130, 141
"""What scripts exit with, as a shell's programs do that such a signal ends."""


class PathParser(flags.ArgumentParser):
    """Paths, with `~` for the user's home; an empty one is refused."""

    def parse(self, argument: str) -> str:
        """The path that a text names."""
        if not argument.strip():
            raise ValueError("it is empty; name a path.")
        return expanded(argument, "it")


class NumberParser(flags.ArgumentParser):
    """Numbers, or None: what a field may hold that is None where it is left out."""

    syntactic_help = "a number, or None"

    def parse(self, argument: str | float | None) -> float | None:
        """The number that a text names."""
        if argument in (None, "None"):
            return None
        number = float(argument)
        whole = isinstance(argument, int) or str(argument).lstrip("+-").isdigit()
        return int(argument) if whole else number


config_flags.register_flag_parser_for_type(type(None), NumberParser())


def define_path(name: str, default: str | None, about: str) -> flags.FlagHolder:
    """Defines a flag that is a path."""
    return flags.DEFINE(PathParser(), name, default, about, serializer=flags.ArgumentSerializer())


CONFIG = config_flags.DEFINE_config_file("config", None, "The run's config.", lock_config=True)
WORKDIR = define_path("workdir", None, "The run directory.")
MARKDOWN = define_path("markdown", None, "Document whose section is rewritten.")
SEEDS = flags.DEFINE_list("seeds", [], "Subset and training seeds; by default the script's own.")
TABLE = define_path("table", None, "The table that is written, .csv or, of weights, .parquet.")
RECORDS = define_path("records", "results", "Folder of the records kept of runs.")
DATA_DIR = define_path("data_dir", None, "TFDS folder, or place of features, if not the run's.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "last", "last, a stage's name, best_held_out, or the number of an epoch."
)
DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "digits, cifar10, cifar100, cifar10_features, cifar100_features, sst2, sst5, modelnet10, "
    "places_lt, imagenet_lt, inaturalist2018; that of the table.",
)
DEBUG = flags.DEFINE_bool("debug", False, "Show whole tracebacks and the libraries' own messages.")
flags.disclaim_key_flags()  # Those of `define_path` are from here on its callers' own.


def run_app(
    main: Callable[[list[str]], None],
    *required: str,
    arguments: bool = False,
    keep_compiled: bool = True,
) -> None:
    """Runs a script's main; an error that its user can mend ends in one sentence.

    Flags of this module that the script's module does not import are none of the script's.

    Args:
        main: called with the arguments that are not flags.
        required: names of the flags that must be given.
        arguments: whether main takes arguments that are not flags.
        keep_compiled: whether compiled programs are kept; not where compiling is what is measured.
    """
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.freeze()  # What is imported stays, and is not to be searched for garbage.
    flags.mark_flags_as_required(required)

    def quiet_main(argv):
        if not DEBUG.value:
            absl.logging.set_verbosity(absl.logging.FATAL)
        try:
            _check_arguments(main, argv[:1] if arguments else argv)
            compilation.set_up(keep_compiled)
            main(argv)
            sys.stdout.flush()
        except (KeyboardInterrupt, Exception) as error:
            if DEBUG.value:
                raise
            if _was_interrupted(error):
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                _end("interrupted; the same command goes on from what is kept.", INTERRUPTED)
            if isinstance(error, BrokenPipeError) and jax.process_count() == 1:
                _end_unread()
            if not isinstance(error, MENDED):
                raise
            _end(sentence(error))

    app.run(quiet_main, flags_parser=lambda argv: _parse(main, argv))


MENDED = (ValueError, ArithmeticError, OSError, RuntimeError, ImportError, MemoryError)
"""What a user can mend; anything else is a mistake of the program, and is shown whole."""


def seeds(default: int) -> list[int]:
    """The seeds of `--seeds`, each once; where none are given, the first so many."""
    given = ",".join(SEEDS.value)
    try:
        found = list(dict.fromkeys(int(seed) for seed in SEEDS.value))
    except ValueError as error:
        raise ValueError(f"--seeds={given} must be whole numbers, as in 0,1,2.") from error
    if any(not 0 <= seed < 2**32 for seed in found):
        raise ValueError(f"--seeds={given} must be whole numbers from 0 to {2**32 - 1}.")
    return found or list(range(default))


def sentence(error: BaseException) -> str:
    """An error in one sentence, with the file where it is one of the system."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror.lower()}; make room, or give rights, there or elsewhere"
        if isinstance(error, FileNotFoundError | FileExistsError | NotADirectoryError):
            text = f"{where}{error.strerror.lower()}"
    return f"{type(error).__name__}: {text.rstrip('.')}."


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether an interrupt lies behind an error, which closing down may have put in its place."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _end(text: str, code: int = 1):
    if jax.process_count() == 1:
        if code == 1:
            sys.exit(text)
        print(text, file=sys.stderr, flush=True)
        sys.exit(code)
    # At once: an orderly end would wait for the other processes, which wait for this one.
    print(f"process {jax.process_index()}: {text}", file=sys.stderr, flush=True)
    os._exit(code)


def _end_unread():
    """Ends without a word, as whoever read the output has gone; `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(UNREAD)


def _check_arguments(main: Callable, argv: list[str]) -> None:
    """Refuses arguments that are no flags, and flags that the script has no use for."""
    if argv[1:]:
        raise ValueError(
            f"{' '.join(argv[1:])!r} stands alone and belongs to no flag; write values without "
            "blanks, as in --config.seeds=0,1,2."
        )
    module = sys.modules[main.__module__]
    for holder in (CONFIG, WORKDIR, MARKDOWN, SEEDS, RECORDS, DATA_DIR, DATASET, CHECKPOINT):
        reader = seeds if holder is SEEDS else holder
        if holder.present and not _imports(module, reader):
            hint = "; give --config.seeds" if holder is SEEDS and _imports(module, CONFIG) else ""
            raise ValueError(
                f"--{holder.name} is no flag of this script{hint or '; leave it out'}."
            )


def _imports(module: types.ModuleType, thing: object) -> bool:
    return any(value is thing for value in vars(module).values())


def _parse(main, argv):
    """Parses flags; a config that does not load or has no such field ends in its last sentence."""
    module = sys.modules[main.__module__]
    has_config = _imports(module, CONFIG)
    if asks_for_help(argv):
        used = [value for value in vars(module).values() if isinstance(value, flags.FlagHolder)]
        used += [SEEDS] if _imports(module, seeds) else []
        parts = [value for value in vars(module).values() if isinstance(value, types.ModuleType)]
        for part in parts:
            used += [v for v in vars(part).values() if isinstance(v, flags.FlagHolder)]
        try:
            show_help(argv, module.__doc__ or "", [one.name for one in used], has_config)
            sys.stdout.flush()
        except BrokenPipeError:
            _end_unread()
        sys.exit(0)
    missing = missing_config(argv) if has_config else None
    if missing:
        sys.exit(missing)
    try:
        return flags.FLAGS(argv)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (
        *(flags.Error, AttributeError, KeyError, TypeError, ValueError),
        *(OSError, ImportError, SyntaxError),
    ) as error:
        sys.exit(_of_flags(error, argv))


def _as_argument(argv: list[str], name: str) -> str | None:
    """How a command line gives as an argument of its config what it gives as a field."""
    text = config_argument(argv)
    given = [one.partition("=")[2] for one in argv if re.match(f"--?config\\.{name}=", one)]
    return spelling(text, name, given[0]) if text and given else None


NOT_OF_TYPE = {
    r"invalid literal for int\(\).*": "it must be a whole number",
    r"could not convert string to float.*": "it must be a number",
    r"\('Non-boolean argument.*": "it must be True or False",
}
"""What Python says where a text is not of a flag's type, and what it means."""


def _of_flags(error: Exception, argv: list[str]) -> str:
    """What is wrong with a flag, in one sentence."""
    text = str(error.args[0] if error.args else error).replace("\\'", "'").replace("\\n", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(error, AttributeError | KeyError):
        field = re.search(r"[\w.]+", lines[0].split("ttribute ")[-1])
        if field and (way := _as_argument(argv, field[0])):
            return f"The config has no field {field[0]!r}, which is an argument: give {way}."
        near = re.search(r'Did you mean "(\w+)"', text)
        rest = f"did you mean {near[1]!r}?" if near else "--help lists its fields."
        return f"The config has no field {field[0] if field else lines[0]!r}; {rest}"
    missing = re.search(r"Flag (--\w+) must have a value other than None", lines[-1])
    if missing:
        return f"{missing[1]} is missing; give it, as --help shows."
    line = lines[-1]
    for pattern, meaning in NOT_OF_TYPE.items():
        line = re.sub(pattern, meaning, line)
    return line if line.endswith(("?", ".")) else f"{line}."
