"""Programs that are kept between tests: taken where they are whole, compiled anew where not."""

import jax
import pytest

from tests.compilations import kept_in


def compiled_anew():
    """A function of its own for jit, whose program is the same each time."""
    return jax.jit(lambda x: 3 * x + 0.123)


@pytest.fixture
def taken():
    """An event for each program that is taken from a folder."""
    seen = []

    def listen(event, **kwargs):
        del kwargs
        if event == "/jax/compilation_cache/cache_hits":
            seen.append(event)

    jax.monitoring.register_event_listener(listen)
    yield seen
    jax.monitoring.unregister_event_listener(listen)


def test_a_program_is_kept_and_taken(tmp_path, taken):
    with kept_in(tmp_path):
        first = compiled_anew()(2.0)
        assert taken == [] and [*tmp_path.glob("*lambda*")]
        assert compiled_anew()(2.0) == first and len(taken) == 1


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-9], lambda content: b"", bytes.swapcase]
)
def test_a_damaged_entry_is_compiled_anew(tmp_path, taken, damage):
    with kept_in(tmp_path):
        first = compiled_anew()(2.0)
        for entry in tmp_path.iterdir():
            entry.write_bytes(damage(entry.read_bytes()))
        assert compiled_anew()(2.0) == first and taken == []


def test_a_folder_that_cannot_be_made_costs_nothing(tmp_path, taken):
    (tmp_path / "file").touch()
    with kept_in(tmp_path / "file" / "folder"):
        assert compiled_anew()(2.0) == compiled_anew()(2.0) and taken == []
