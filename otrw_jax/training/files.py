"""Files of a run directory: written whole or not at all, and told of by name."""

import contextlib
import json
import os
import pathlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back until the block has ended, so that nothing is left half done."""
    elsewhere = threading.current_thread() is not threading.main_thread()
    if elsewhere or signal.getsignal(signal.SIGINT) is None:  # None: not installed from Python.
        yield
        return
    came = []
    before = signal.signal(signal.SIGINT, lambda *given: came.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[0])


@contextlib.contextmanager
def writing(path: str | pathlib.Path) -> Iterator[None]:
    """Says of an error of the file system which file it is about, and what to do.

    Raises:
        OSError: of the same kind, in one sentence.
    """
    try:
        yield
    except OSError as error:
        full = f"{path} cannot be written ({error.strerror or error}); what was saved is intact: "
        way = "make room, or allow writing there, then run the same command again."
        raise type(error)(full + way) from error


def read_json(path: str | pathlib.Path) -> Any:
    """Reads a JSON file of a run directory.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: {error}; restore it, or begin anew in another directory."
        ) from error


def write_json(path: str | pathlib.Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there is intact.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: str | pathlib.Path, text: str) -> None:
    """Writes a file of text, whole or not at all; its folder is made where there is none.

    Raises:
        OSError: it cannot be written; what was there is intact.
    """
    with replacing(path) as draft:
        draft.write_text(text)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a path beside a file's, which takes its place where the block ends without an error.

    Readers never see half of the file. The folder is made where there is none.

    Raises:
        OSError: it cannot be written; what was there is intact, and nothing is left beside it.
    """
    path = pathlib.Path(path)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
