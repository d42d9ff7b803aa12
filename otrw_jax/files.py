"""Files that are written whole or not at all, and told of by name."""

import contextlib
import json
import os
import pathlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class RunningError(RuntimeError):
    """A run directory is in use by another process."""


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
def writing(path: str | os.PathLike) -> Iterator[None]:
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


@contextlib.contextmanager
def replacing(path: str | os.PathLike, suffix: str = ".tmp") -> Iterator[pathlib.Path]:
    """Gives a draft beside a file to write to, which takes its place once the block has ended.

    Readers never see half of it. The folder is made where there is none.

    Args:
        path: of the file.
        suffix: of the draft's name; one of its own where several processes may write at once.

    Raises:
        OSError: it cannot be written; what was there is intact.
    """
    path = pathlib.Path(path)
    draft = path.with_name(path.name + suffix)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            draft.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def alone_in(workdir: pathlib.Path) -> Iterator[None]:
    """Holds a run directory, so that no second process writes to it at the same time.

    Raises:
        RunningError: another process holds it.
    """
    import fcntl  # Not on Windows.

    path = workdir / ".lock"
    with contextlib.ExitStack() as opened:
        with writing(path):
            file = opened.enter_context(path.open("w"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunningError(
                f"another process is training in {workdir}; wait for it, end it, or choose "
                "another --workdir."
            ) from None
        except OSError:  # A file system without locks: nothing to hold.
            pass
        yield


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file, such as one of a run directory.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: {error}; restore it, or begin anew in another directory."
        ) from error


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a JSON file, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there is intact.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a file of text, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there is intact.
    """
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def append_line(path: str | os.PathLike, line: str) -> None:
    """Adds a line at the end of a file, on the disk before it returns; whole or not at all.

    Raises:
        OSError: it cannot be written; what was there is intact.
    """
    left = memoryview(f"{line}\n".encode())
    with writing(path), open(path, "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while left:  # Where the disk is about to be full, a part of it is written.
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # A device has no end to be cut off.
                file.truncate(end)
            raise
