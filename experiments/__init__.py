"""Scripts that compose the library into runs that anyone can repeat."""

import sys

if sys.argv[:1] == ["-m"]:  # A script is starting; `cli` sees to what comes after its imports.

    def _say(kind, error, traceback):
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted before anything was begun.", file=sys.stderr, flush=True)
        else:
            sys.__excepthook__(kind, error, traceback)

    sys.excepthook = _say
