"""Arguments in the config string, as `--config=FILE:name=value,name=value` has them."""

from ml_collections import ConfigDict

from otrw_jax.checks import nearest


def parse_arguments(text: str, **defaults) -> ConfigDict:
    """Reads `name=value,name=value` into a ConfigDict of the defaults' names and types.

    Args:
        text: the arguments.
        defaults: by name; a type in place of a default is that of an argument that is None where
            it is not given.

    Raises:
        ValueError: an unknown name (the nearest known one is suggested), or a bad value.
    """
    types = {name: d if isinstance(d, type) else type(d) for name, d in defaults.items()}
    arguments = ConfigDict(
        {name: None if isinstance(d, type) else d for name, d in defaults.items()}
    )
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        if name not in defaults:
            raise ValueError(
                f"unknown config argument {name!r}; did you mean {nearest(name, defaults)!r}? "
                f"There are {', '.join(defaults)}."
            )
        try:
            arguments[name] = types[name](value)
        except ValueError as error:
            kind = types[name].__name__
            raise ValueError(f"config argument {name}={value!r} is not of type {kind}.") from error
    return arguments
