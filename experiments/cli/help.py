"""What `--help` shows: a script's flags, and the fields of a config with their ranges."""

import pathlib
import re
import runpy

import flax.traverse_util
from absl import flags
from ml_collections import ConfigDict

from experiments.configs.checks.fields import rule_of
from experiments.recipes import recipe_name
from otrw_jax.checks import nearest

ASKED = ("--help", "-help", "-h", "--helpshort", "--helpfull", "-?")
CONFIGS = pathlib.Path("experiments/configs")
DEFAULT = CONFIGS / "digits.py"
OF_EVERY_SCRIPT = ("keep_compiled", "fast_cpu", "debug")


def asks_for_help(argv: list[str]) -> bool:
    """Whether an argument asks for help."""
    return any(argument in ASKED for argument in argv[1:])


def show_help(argv: list[str], about: str, names: list[str], has_config: bool) -> None:
    """Prints what a script does, its flags, and the fields of its config.

    Args:
        argv: the command line, which may name the config.
        about: what the script does, and how it is called.
        names: of its flags.
        has_config: whether it takes a config, whose fields are then listed.
    """
    print(about.strip(), end="\n\n")
    for name in [*dict.fromkeys(names), *OF_EVERY_SCRIPT]:
        print(f"  --{name}: {' '.join(flags.FLAGS[name].help.split())}")
    if has_config:
        text = config_argument(argv) or str(DEFAULT)
        print(f"\nFields of {text}, as --config.FIELD=VALUE:\n")
        print("\n".join(fields_of(text)))


def config_argument(argv: list[str]) -> str | None:
    """What `--config` is given on a command line."""
    for at, argument in enumerate(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            return value if equals else next(iter(argv[at + 1 :]), None)
    return None


def missing_config(argv: list[str]) -> str | None:
    """A sentence where the config's file is none; the nearest is suggested."""
    text = config_argument(argv)
    file = (text or "").partition(":")[0]
    if text is None or _is_config(pathlib.Path(file)):
        return None
    known = [str(path) for path in sorted(CONFIGS.glob("*.py")) if _is_config(path)]
    hint = f"; did you mean {nearest(file, known)}?" if known else "."
    return f"--config={file} is no config file{hint}"


def _is_config(path: pathlib.Path) -> bool:
    """Whether a file gives a config; those beside them in their folder give none."""
    defined = r"^(def get_config\(|from .* import .*\bget_config\b)"
    is_file = path.suffix == ".py" and path.is_file()
    return is_file and re.search(defined, path.read_text(errors="replace"), re.M) is not None


def fields_of(text: str) -> list[str]:
    """A line for each field of a config: name, value and range; of stages, its recipe's alone.

    Args:
        text: file and arguments, as `--config` has them.

    Raises:
        ValueError: the config's own, of an unknown argument.
    """
    file, _, arguments = text.partition(":")
    config = runpy.run_path(file)["get_config"](arguments)
    recipe = recipe_name(config.recipe)
    for part in ("stage2", "options"):
        own = {name: section for name, section in config[part].items() if name == recipe}
        config[part] = ConfigDict(own)
    lines = []
    for name, value in flax.traverse_util.flatten_dict(config.to_dict(), sep=".").items():
        rule = rule_of(name)
        lines.append(f"  {name} = {value!r}{f'  ({rule.range})' if rule else ''}")
    return lines
