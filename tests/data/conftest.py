"""Where the tests of real data find it."""

import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data: OTRW_SHARED_DATA, else ../shared/data beside the repository."""
    beside = pathlib.Path(__file__).parents[2].parent / "shared" / "data"
    folder = pathlib.Path(os.environ.get("OTRW_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"there is no real data in {folder}")
    return folder
