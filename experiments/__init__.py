"""Scripts that compose the library into runs that anyone can repeat."""

import gc
import os
import signal
import sys
import types


def end_at_once(*_) -> None:
    """Ends a script that is interrupted while it imports, where there is nothing to be kept.

    An exception would go through the imports of native modules, some of which end in a fault of
    memory then.
    """
    os.write(2, b"interrupted before anything was begun.\n")
    os._exit(130)


def name_what_is_missing(
    kind: type[BaseException],
    error: BaseException,
    traceback: types.TracebackType | None,
) -> None:
    """Says in one sentence, in place of a traceback, which package a script lacks."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if name is None or name.partition(".")[0] in ("experiments", "otrw_jax"):
        return sys.__excepthook__(kind, error, traceback)
    text = str(error)
    if "pip install" not in text:
        text = f"{name} is not installed; pip install -e '.[experiments]' brings it."
    print(text, file=sys.stderr)


# A script is starting; `cli` sees to what comes after its imports. One that ignores interrupts, as
# in the background of a shell, goes on to do so. Imports and traces make many small objects that
# stay, and are searched for garbage less often than Python does by itself.
if sys.argv[:1] == ["-m"]:
    gc.set_threshold(10_000, 10, 10)
    sys.excepthook = name_what_is_missing
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
