"""What the tests of files of weights share."""

import pytest

from otrw_jax.models.weights.pth import read_pth


@pytest.fixture
def read(tmp_path):
    def of(content):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return read_pth(path)

    return of
