"""What a file must be for a script to take it as its config."""

import pathlib

import pytest

from experiments.cli.help import missing_config

FOLDER = pathlib.Path("experiments/configs")
DATA = (
    "cifar_features",
    "cifar_lt",
    "digits",
    "features",
    "image_folder",
    "large_sets",
    "modelnet10",
    "photos",
    "sst",
)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_of_the_files_beside_the_configs_none_is_taken_or_suggested(path):
    said = missing_config(["train", f"--config={path}"])
    assert (said is None) == (path.stem in DATA)
    near = missing_config(["train", f"--config={path.with_stem(path.stem[:-1])}:recipe=ce"])
    assert pathlib.Path(near.split("did you mean ")[1].rstrip("?")).stem in DATA


def test_a_config_may_stand_elsewhere_and_take_anothers_function(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("from experiments.configs.digits import get_config\n")
    assert missing_config(["train", f"--config={own}"]) is None
