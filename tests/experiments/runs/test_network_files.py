"""A first stage as one file: what starts from it is what starts from the run, bit for bit."""

import shutil

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import export
from experiments.documents import network_list
from experiments.program.experiment import Experiment
from experiments.runs.directory import ConfigMismatchError
from experiments.runs.network_files import read_about, read_network, stage1_of_seed, write_network
from experiments.runs.restoring import restore
from experiments.runs.training import train
from otrw_jax.files import read_json
from tests.experiments.shared import history_of, with_fields


@pytest.fixture(scope="module")
def exported(whole_run, tmp_path_factory):
    """The first stage of the uninterrupted run, and what its header says."""
    path = tmp_path_factory.mktemp("networks") / "digits_seed0.safetensors"
    return path, export.export(whole_run[0], path)


def test_a_second_stage_from_a_file_gives_the_same_bits(
    exported, whole_run, experiment, final_state, assert_same_bits, tmp_path
):
    workdir, results = whole_run
    assert train(experiment, tmp_path, 0, 0, exported[0]) == results
    one, other = (final_state(experiment, folder, 5) for folder in (tmp_path, workdir))
    assert_same_bits(one, other)
    one, other = (final_state(experiment, folder, 3) for folder in (tmp_path, workdir))
    assert_same_bits(one.variables, other.variables)
    assert history_of(tmp_path) == history_of(workdir)


def test_the_header_says_what_the_network_is(exported, whole_run, experiment):
    path, about = exported
    run, config = read_json(whole_run[0] / "run.json"), about["config"]
    assert read_about(path) == about
    names = ("fingerprint", "counts", "parameters", "versions", "device")
    assert {name: about[name] for name in names} == {name: run[name] for name in names}
    assert [record["number"] for record in about["history"]] == [1, 2, 3]
    assert about["results"]["last"] == {"epoch": 3, **about["history"][-1]["test"]}
    assert config["stage1.epochs"] == 3 and config["seed"] == config["subset_seed"] == 0
    assert not {"data.data_dir", "stage1_from"} & config.keys()
    assert str(experiment.config.data.data_dir) not in path.read_bytes().decode("latin-1")


def test_another_first_stage_is_refused(exported, experiment, tmp_path):
    path = exported[0]
    other = with_fields(experiment, **{"stage1.optimizer.learning_rate": 0.01})
    with pytest.raises(ConfigMismatchError) as caught:
        train(other, tmp_path / "a", 1, 0, path)
    assert f"{path} differs in seed, stage1.optimizer.learning_rate;" in str(caught.value)


def test_another_subset_is_refused(exported, whole_run, experiment, tmp_path):
    """The same config on a data set that was prepared to other content."""
    path, about = exported
    other = tmp_path / "other.safetensors"
    variables = restore(whole_run[0], "stage1").state.variables
    write_network(other, variables, about | {"fingerprint": "0123456789abcdef"})
    with pytest.raises(ConfigMismatchError, match="trained on subset 0123456789abcdef, this run's"):
        train(experiment, tmp_path / "run", 0, 0, other)
    assert train(experiment, tmp_path / "run", 0, 0, path) == whole_run[1]


def test_a_file_that_is_missing_damaged_or_of_another_network(exported, whole_run, tmp_path):
    path = exported[0]
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors is no file"):
        read_about(tmp_path / "gone.safetensors")
    content = path.read_bytes()
    for number, damaged in enumerate((b"", content[:100], content[:-8], b"x" * 500)):
        broken = tmp_path / f"{number}.safetensors"
        broken.write_bytes(damaged)
        with pytest.raises(ValueError, match="is not a whole network file"):
            read_about(broken)
    variables = restore(whole_run[0], "stage1").state.variables
    larger = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), variables)
    with pytest.raises(ValueError, match=r"params/backbone/.* is float32\[.*there and float32\[2,"):
        read_network(path, larger)


def test_a_first_stage_that_learns_weights_is_not_exported(small_config, tmp_path):
    config = small_config("hu")
    config.stage1.epochs = 1
    train(Experiment(config), tmp_path / "hu", 0, 0)
    with pytest.raises(ValueError, match=r"hu learns .*weights.* beside its network"):
        export.export(tmp_path / "hu", tmp_path / "hu.safetensors")
    assert not (tmp_path / "hu.safetensors").exists()


def test_of_several_seeds_each_finds_its_own(tmp_path):
    assert stage1_of_seed("", 3) == ""
    assert stage1_of_seed(tmp_path, 3) == tmp_path / "seed_3"
    path = tmp_path / "ce_seed{seed}.safetensors"
    assert stage1_of_seed(str(path), 3) == tmp_path / "ce_seed3.safetensors"


def test_the_command_and_the_list(exported, whole_run, tmp_path, capsys):
    path = tmp_path / "networks" / "one.safetensors"
    with flagsaver.flagsaver():
        argv = flags.FLAGS(["export", f"--workdir={whole_run[0]}", f"--to={path}"])
        export.main(argv)
    assert path.read_bytes() == exported[0].read_bytes()
    error = exported[1]["results"]["last"]["error"]
    assert f"test error {error:.2f} %" in capsys.readouterr().out
    shutil.copy(path, path.with_name("another.safetensors"))
    lines = network_list.document(path.parent).splitlines()
    (one,) = [line for line in lines if line.startswith("| `one.safetensors`")]
    assert f" {error:.2f} |" in one and f"`{exported[1]['fingerprint']}`" in one
    assert network_list.document(tmp_path) == ""
    with flagsaver.flagsaver(), pytest.raises(ValueError, match=r"must end in \.safetensors"):
        export.main(flags.FLAGS(["export", f"--workdir={whole_run[0]}", "--to=x.npz"]))
