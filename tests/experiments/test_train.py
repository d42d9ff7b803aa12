"""The script that trains: several seeds, first stages taken over, what is told in one line."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments import train as train_script
from experiments.runs.outcomes import mean_results, result_lines
from otrw_jax.files import read_json

pytestmark = [
    # By ml_collections, which loads the config file.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "experiments" / "configs" / "digits.py"


def test_a_seed_given_twice(run_script, data_dir, tmp_path):
    arguments = [
        f"--config={CONFIG}",
        f"--config.data.data_dir={data_dir}",
        f"--workdir={tmp_path}",
    ]
    said = run_script(train_script, *arguments, "--config.seeds=(0,0)")
    assert "seeds=(0, 0) has one twice" in said
    said = run_script(train_script, *arguments, "--config.stage1.epoch=3")
    assert said == "The config has no field 'epoch'; did you mean 'epochs'?"


def test_training_several_seeds(run_script, data_dir, tmp_path, capsys):
    workdir = tmp_path / "runs"
    arguments = [
        f"--config={CONFIG}:recipe=ce",
        f"--config.data.data_dir={data_dir}",
        "--config.stage1.epochs=2",
        "--config.seeds=(0,1)",
        f"--workdir={workdir}",
    ]
    assert run_script(train_script, *arguments) is None
    runs = [read_json(workdir / f"seed_{seed}" / "results.json") for seed in (0, 1)]
    for seed in (0, 1):
        config = read_json(workdir / f"seed_{seed}" / "config.json")
        assert (config["seed"], config["subset_seed"]) == (seed, seed)
    results = read_json(workdir / "results.json")
    assert results["seeds"] == [0, 1]
    for name in ("last", "best_held_out", "best_test"):
        errors = [run[name]["error"] for run in runs]
        assert results[name]["error"] == pytest.approx(
            {"mean": np.mean(errors), "std": abs(errors[0] - errors[1]) / np.sqrt(2)}
        )
    assert results["last"]["error"]["std"] > 0
    mean = results["last"]["error"]["mean"]
    assert f"error {mean:.2f} ± " in capsys.readouterr().out

    single = [a.replace("(0,1)", "()") for a in arguments[:-1]]
    inside = f"--workdir={workdir / 'seed_1'}"
    assert (
        run_script(train_script, *single, "--config.seed=1", "--config.subset_seed=1", inside)
        is None
    )
    end = run_script(train_script, *arguments[:-1], inside)
    assert end.endswith("holds a run of one seed; choose another --workdir.")
    end = run_script(train_script, *single, inside)
    assert "ConfigMismatchError" in end and "seed is 1 there and 0 here" in end


def test_one_seed_has_no_deviation():
    one = {"last": {"epoch": 3, "error": 12.5}, "best_held_out": None}
    results = mean_results([one])
    assert results == {"last": {"epoch": {"mean": 3.0}, "error": {"mean": 12.5}}}
    assert result_lines(results) == ["last epoch: error 12.50"]


def test_the_first_stages_of_several_seeds(run_script, data_dir, tmp_path):
    common = [
        *(f"--config.data.data_dir={data_dir}", "--config.stage1.epochs=2"),
        "--config.seeds=(3,)",
    ]
    first, second = tmp_path / "ce", tmp_path / "cb"
    assert (
        run_script(train_script, f"--config={CONFIG}:recipe=ce", *common, f"--workdir={first}")
        is None
    )
    arguments = [
        *(f"--config={CONFIG}:recipe=cb", *common, "--config.stage2.cb.epochs=1"),
        *(f"--config.stage1_from={first}", f"--workdir={second}"),
    ]
    assert run_script(train_script, *arguments) is None
    assert not (second / "seed_3" / "checkpoints" / "1").exists()
    one, other = (
        (path / "seed_3" / "metrics.jsonl").read_text().splitlines() for path in (first, second)
    )
    assert other[:2] == one and len(other) == 3


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--config.stage1.epoch=3"], ["epoch", "epochs"]),
        (["--config.stage1.epochs=many"], ["many"]),
        (["--config.recipe=otrw_papr"], ["otrw_papr", "did you mean 'otrw_paper'"]),
    ],
)
def test_a_wrong_field_is_told_in_one_line(run_script, arguments, parts, tmp_path):
    workdir = tmp_path / "run"
    end = run_script(train_script, f"--config={CONFIG}", f"--workdir={workdir}", *arguments)
    assert isinstance(end, str) and "\n" not in end, end
    assert all(part in end for part in parts), end
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (f"{CONFIG}:recip=ce", "unknown config argument 'recip'; did you mean 'recipe'?"),
        ("configs/none.py", "configs/none.py"),
    ],
)
def test_a_config_that_does_not_load_is_told_in_one_line(run_script, config, message, tmp_path):
    end = run_script(train_script, f"--config={config}", f"--workdir={tmp_path / 'run'}")
    assert isinstance(end, str) and "\n" not in end and message in end, end


def test_a_missing_config_is_told(run_script, tmp_path):
    assert "--config" in run_script(train_script, f"--workdir={tmp_path}")


def test_a_script_ends_with_one_line_and_a_failure(tmp_path):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.train", f"--config={CONFIG}"),
            *("--config.model.hiden=3", f"--workdir={tmp_path / 'run'}"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert "hiden" in lines[0] and "hidden" in lines[0]
    assert not (tmp_path / "run").exists()
