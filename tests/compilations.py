"""Compilations, counted."""

import contextlib

import jax


@contextlib.contextmanager
def heard():
    """A list that grows by one with every program compiled, or taken from a folder of such."""
    compiled = []

    def listen(event, seconds, **kwargs):
        del seconds, kwargs
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
