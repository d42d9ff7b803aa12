"""Files of weights, without the package that reads one kind of them."""

import subprocess
import sys

import pytest

from otrw_jax.models.weights.files import read_tensors


def test_the_message_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "weights.safetensors").touch()
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'otrw_jax\[weights\]' brings it"):
        read_tensors(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"weights\.pth"):
        read_tensors(tmp_path / "weights.pth")


def test_no_module_of_the_library_imports_it_by_itself():
    """Files of `torch.save` are read without it."""
    code = "import sys; sys.modules['safetensors'] = None; import otrw_jax.models.image_encoder"
    subprocess.run([sys.executable, "-c", code], check=True)
