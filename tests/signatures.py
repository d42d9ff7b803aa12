"""What checks signatures in the tests, see `conftest.py`: beartype, but of constructors."""

from beartype import BeartypeConf, beartype

CONF = BeartypeConf(is_pep484_tower=True)  # Whole numbers are taken for floats, as mypy has it.


def checked(function):
    """A function whose arguments and results must be what its signature says.

    Constructors are left as they are: JAX fills pytrees with other things than arrays too.
    """
    return (
        function if function.__qualname__.endswith(".__init__") else beartype(function, conf=CONF)
    )
