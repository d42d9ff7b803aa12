"""What a command line changes of a config: whether all that depends on it has changed with it."""

import runpy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from absl import flags
from ml_collections import ConfigDict

from experiments.configs.kinds import IMAGE_FOLDERS
from experiments.recipes import RECIPES, recipe_name

DECISIVE = {"data.name": ("dataset", ""), "model.name": ("backbone",)}
"""Fields by which a config file chooses others, and arguments of config files that set them."""


def run_config(flag: flags.FlagHolder, followed: Sequence[str] | None = None) -> ConfigDict:
    """The config of a run from its flag, with what the command line changes of it.

    Args:
        flag: of the config.
        followed: as of `check_overrides`.

    Raises:
        ValueError: as `check_overrides`.
    """
    config, given = flag.value, cast(Any, flags.FLAGS[flag.name])
    check_overrides(config, given.config_filename, given.override_values, followed)
    follow_rates(config, given.override_values)
    return config


def check_overrides(
    config: ConfigDict, text: str, values: Mapping[str, Any], followed: Sequence[str] | None = None
) -> None:
    """Refuses what a run would ignore, or would follow by half.

    Args:
        config: with the changes in it.
        text: the config's file and arguments, as `--config` has them.
        values: the changes, from dotted names.
        followed: of a script that is of no recipe, the sections of second stages that it follows.

    Raises:
        ValueError: a field of another recipe, or of none that is followed; a data set or network
            other than the one that the other fields are for; one seed beside several.
    """
    own = recipe_name(config.recipe)
    for name in values:
        part, _, rest = name.partition(".")
        recipe = rest.partition(".")[0]
        if followed is not None:
            if part in ("stage2", "options", "recipe") and not name.startswith(tuple(followed)):
                raise ValueError(
                    f"--config.{name} has no meaning for this script, which follows "
                    f"{', '.join(followed)} alone; leave it out."
                )
        elif part in ("stage2", "options") and recipe in RECIPES and recipe != own:
            raise ValueError(
                f"--config.{name} is a field of {recipe}, and the run's recipe is {own}; leave it "
                f"out, or give --config.recipe={recipe}."
            )
    for name in ("seed", "subset_seed"):
        if config.seeds and name in values:
            raise ValueError(
                f"--config.{name} has no meaning beside seeds={tuple(config.seeds)}, each of which "
                "is both; leave one of the two out."
            )
    for name in DECISIVE.keys() & values.keys():
        _check_decisive(name, text, values[name])


def follow_rates(config: ConfigDict, changed: Collection[str]) -> None:
    """Gives virtual steps the changed rate of their network, where they are given none themselves.

    Both are alpha in Algorithms 1 and 2 of Guo et al. 2022.

    Args:
        config: with the changes in it.
        changed: the dotted names of the fields that were changed.
    """
    for name, section in config.stage2.items():
        rate = f"stage2.{name}.optimizer.learning_rate"
        virtual = f"stage2.{name}.choices.virtual_learning_rate"
        if rate in changed and virtual not in changed and "choices" in section:
            section.choices.virtual_learning_rate = section.optimizer.learning_rate


def spelling(text: str, name: str, value: Any) -> str | None:
    """How an argument of a config file is given; None where it has no such argument, or value.

    Args:
        text: the config's file and arguments, as `--config` has them.
        name: of the argument; "" for the first one where that has no name.
        value: its value.
    """
    file, _, arguments = text.partition(":")
    item = f"{name}={value}" if name else f"{value}"
    others = [one for one in arguments.split(",") if one and one.partition("=")[0] != name]
    unnamed = [one for one in others if "=" not in one]
    named = [one for one in others if "=" in one]
    new = ",".join([*unnamed, *named, item] if name else [item, *named])
    try:
        runpy.run_path(file)["get_config"](new)
    except (KeyError, OSError, ValueError):
        return None
    return f"--config={file}:{new}"


def _check_decisive(name: str, text: str, value: Any) -> None:
    from otrw_jax.data.sources import BUILDERS  # Slow to import, with TFDS.

    if name == "data.name" and value not in (*BUILDERS, *IMAGE_FOLDERS):
        return  # Told where it is looked for, with the nearest.
    file, _, arguments = text.partition(":")
    made = runpy.run_path(file)["get_config"](arguments)
    part, _, field = name.partition(".")
    if value == made[part][field]:
        return
    ways = (spelling(text, argument, value) for argument in DECISIVE[name])
    way = next((one for one in ways if one), None)
    raise ValueError(
        f"--config.{name} is {value!r}, and the other fields are those for {made[part][field]!r}; "
        f"{f'give {way}' if way else f'choose a config file of {value!r}'}."
    )
