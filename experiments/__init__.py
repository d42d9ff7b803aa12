"""Scripts that compose the library into runs that anyone can repeat."""

import os
import signal
import sys


def end_at_once(*_) -> None:
    """Ends a script that is interrupted while it imports, where there is nothing to be kept.

    An exception would go through the imports of native modules, some of which end in a fault of
    memory then.
    """
    os.write(2, b"interrupted before anything was begun.\n")
    os._exit(130)


# A script is starting; `cli` sees to what comes after its imports. One that ignores interrupts, as
# in the background of a shell, goes on to do so.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end_at_once)
