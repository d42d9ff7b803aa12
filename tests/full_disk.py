"""A disk that is full after so many bytes of a file: what is written before is written."""

import contextlib
import resource


@contextlib.contextmanager
def full_after(size):
    """Within the block no file of this process grows beyond a size, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
