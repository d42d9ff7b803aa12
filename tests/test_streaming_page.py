"""The program of docs/streaming.md, on tiny images and a small network, through a damaged file."""

import pathlib
import re

import jax
import numpy as np
import pytest

from otrw_jax.data.builders.image_files import ImageError
from otrw_jax.training.calls import epoch_key, order_and_steps
from tests.data.builders.image_files import cut_off, save

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "streaming.md"
SMALLER = {
    "ResNetImageNet(depth=50)": "MLP(hidden=(4,))",
    "from otrw_jax.models.backbones.resnet_imagenet import ResNetImageNet": (
        "from otrw_jax.models.backbones.mlp import MLP"
    ),
    "optax.sgd(0.2,": "optax.sgd(0.01,",
    "epochs=90": "epochs=2",
    "batch_size=512": "batch_size=2",
    "save_every=100": "save_every=2",
}


def program():
    """The page's `train`, made small."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for large, small in SMALLER.items():
        assert large in code
        code = code.replace(large, small)
    names = {}
    exec(code, names)
    return names["train"]


def test_it_goes_on_after_a_file_was_restored_as_if_nothing_had_been(tmp_path, capsys):
    for number in range(16):
        save(tmp_path / f"images/{number:02}.jpg", number, suffix="JPEG")
    paths, labels = sorted((tmp_path / "images").iterdir()), np.arange(16) % 3
    train = program()

    def run(folder):
        train(paths, labels, paths[:3], labels[:3], 3, tmp_path / folder, side=6, stored=8)
        return capsys.readouterr().out.split("\n")

    whole = run("whole")
    assert whole[0].startswith("0 {'error'") and "\n".join(whole).count("loss") == 2

    # The last that the first epoch reads.
    key, _ = order_and_steps(epoch_key(jax.random.key(0), 0))
    damaged = paths[int(jax.random.permutation(key, len(paths))[-1])]
    content = damaged.read_bytes()
    cut_off(damaged)
    with pytest.raises(ImageError, match=f"{damaged.name} is damaged or cut off; restore it"):
        run("stopped")
    assert "loss" not in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "stopped").iterdir()] in (["2"], ["4"])
    damaged.write_bytes(content)
    assert run("stopped") == whole
