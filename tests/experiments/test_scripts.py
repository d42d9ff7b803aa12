import csv
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from experiments import evaluate, figures
from experiments import train as train_script
from experiments.cli import run_app
from experiments.pictures import drawing
from experiments.pictures.plans import transport_of_run, transport_toy
from experiments.program.compiled import Program
from experiments.program.experiment import Experiment
from experiments.runs.outcomes import mean_results, result_lines
from experiments.runs.restoring import restore
from experiments.runs.training import train
from otrw_jax.data.sources import load_dataset
from otrw_jax.files import read_json
from otrw_jax.training.checkpoints import CheckpointError

pytestmark = [
    # By ml_collections, which loads the config file.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "experiments" / "configs" / "digits.py"


@pytest.fixture
def run_script(monkeypatch, data_dir):
    """Calls a script as the command line would; returns what it exits with."""
    del data_dir

    def run(script, *arguments):
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
            try:
                required = ("config", "workdir") if script is train_script else ("workdir",)
                run_app(script.main, *required)
            except SystemExit as end:
                return end.code
            finally:
                flags.FLAGS.mark_as_parsed()

    return run


def is_picture(path):
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 200


def test_evaluating_a_run(run_script, whole_run, experiment, data_dir, capsys, tmp_path):
    workdir, results = whole_run
    table = tmp_path / "weights.csv"
    assert run_script(evaluate, f"--workdir={workdir}", f"--weights={table}") is None

    evaluation = read_json(workdir / "evaluation.json")
    assert (evaluation["checkpoint"], evaluation["stage"]) == (5, "stage2")
    assert {"epoch": 5, **evaluation["test"]} == pytest.approx(results["last"], abs=1e-4)
    assert evaluation["fingerprint"] == read_json(workdir / "run.json")["fingerprint"]
    confusion = np.array(evaluation["confusion"])
    np.testing.assert_array_equal(confusion.sum(axis=1), [40] * 10)
    accuracies = 100 * np.diag(confusion) / 40
    assert evaluation["per_class_accuracy"] == pytest.approx(accuracies, rel=1e-5)
    assert evaluation["test"]["error"] == pytest.approx(100 - accuracies.mean(), rel=1e-5)
    assert set(evaluation["held_out"]) == set(evaluation["test"])
    assert is_picture(workdir / "confusion.png")
    out = capsys.readouterr().out
    assert f"epoch 5 (stage2) of {workdir}" in out
    assert any(
        line.split() == ["error", f"{results['last']['error']:.2f}", "%"]
        for line in out.splitlines()
    )

    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "label", "weight"]
    ids, labels = (np.array([int(row[name]) for row in rows]) for name in ("id", "label"))
    # Rows of the data set's training part, those of this run's subset.
    np.testing.assert_array_equal(ids, experiment.prepare(0).split.train)
    np.testing.assert_array_equal(labels, load_dataset("digits", data_dir).train_labels[ids])
    state = restore(workdir).state
    np.testing.assert_array_equal(
        np.array([row["weight"] for row in rows], np.float32), state.weights.values
    )


def test_what_is_evaluated_is_evaluated_once(run_script, whole_run, monkeypatch):
    workdir, _ = whole_run
    made, sizes = Program._evaluator, []

    def counting(self, *arguments):
        evaluate = made(self, *arguments)

        def counted(variables, examples):
            sizes.append(len(examples.labels))
            return evaluate(variables, examples)

        return counted

    monkeypatch.setattr(Program, "_evaluator", counting)
    assert run_script(evaluate, f"--workdir={workdir}") is None
    assert sizes == [400, 50]  # The test set and the held-out part.


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


@pytest.mark.parametrize(
    ("checkpoint", "number", "stage"), [("stage1", 3, "stage1"), ("4", 4, "stage2")]
)
def test_evaluating_another_checkpoint(run_script, whole_run, checkpoint, number, stage):
    workdir, _ = whole_run
    assert run_script(evaluate, f"--workdir={workdir}", f"--checkpoint={checkpoint}") is None
    evaluation = read_json(workdir / "evaluation.json")
    assert (evaluation["checkpoint"], evaluation["stage"]) == (number, stage)
    records = (workdir / "metrics.jsonl").read_text().splitlines()
    found = json.loads(records[number - 1])["test"]
    assert evaluation["test"] == pytest.approx(found, abs=1e-4)


def test_the_data_may_have_moved(run_script, small_config, data_dir, tmp_path):
    config = small_config("ce")
    config.stage1.epochs = 1
    workdir = tmp_path / "run"
    train(Experiment(config), workdir, 0, 0)
    path = workdir / "config.json"
    path.write_text(path.read_text().replace(str(data_dir), str(tmp_path / "file")))
    (tmp_path / "file").touch()
    assert "file" in run_script(evaluate, f"--workdir={workdir}")
    assert run_script(evaluate, f"--workdir={workdir}", f"--data_dir={data_dir}") is None


def test_cross_entropy_alone_has_no_figure_of_weights(small_config, tmp_path, monkeypatch):
    config = small_config("ce")
    config.stage1.epochs = 1
    train(Experiment(config), tmp_path, 0, 0)
    plan = np.full((4, 2), 0.125)
    toy = {"cost": (plan, plan, plan, np.full(4, 0.25))}, np.arange(4)
    monkeypatch.setattr(drawing, "transport_toy", lambda restored: toy)
    names = ("confusion_matrices.png", "convergence.png", "transport_toy.png")
    expected = [tmp_path / name for name in names]
    assert drawing.draw(tmp_path) == expected
    assert sorted(tmp_path.glob("*.png")) == expected


def test_what_cannot_be_evaluated_is_told_in_one_line(run_script, whole_run, tmp_path):
    workdir, _ = whole_run
    for checkpoint, message in {
        "best": "ValueError: checkpoint 'best' is not known; choose last, stage1, stage2, best_",
        "77": f"CheckpointError: {workdir / 'checkpoints'} holds no checkpoint 77; there are [3, 4",
    }.items():
        end = run_script(evaluate, f"--workdir={workdir}", f"--checkpoint={checkpoint}")
        assert end.startswith(message) and "\n" not in end
    end = run_script(
        evaluate,
        *(f"--workdir={workdir}", "--checkpoint=stage1", f"--weights={tmp_path / 'w.csv'}"),
    )
    assert end.startswith("ValueError: stage1 of otrw_paper learns no weights")
    assert not (tmp_path / "w.csv").exists()
    end = run_script(evaluate, f"--workdir={tmp_path / 'none'}")
    assert end == f"FileNotFoundError: {tmp_path / 'none'} holds no run; train first."
    assert not (tmp_path / "none").exists()
    with pytest.raises(CheckpointError):
        run_script(evaluate, f"--workdir={workdir}", "--checkpoint=77", "--debug")


def test_a_network_of_nan_is_told_in_one_line(run_script, whole_run, monkeypatch):
    workdir, _ = whole_run
    end = evaluate.restore(workdir)
    variables = jax.tree.map(lambda x: x * np.nan, end.state.variables)
    spoilt = end._replace(state=end.state.replace(variables=variables))
    monkeypatch.setattr(evaluate, "restore", lambda *given: spoilt)
    before = (workdir / "evaluation.json").exists()
    ended = run_script(evaluate, f"--workdir={workdir}")
    assert ended.startswith("LogitsNotFiniteError: evaluation: not all logits of the ")
    assert (workdir / "evaluation.json").exists() == before


def test_a_missing_flag_is_told(run_script):
    assert "--workdir" in run_script(evaluate)
    end = run_script(evaluate, "--workdirr=x")
    assert "'workdirr'" in end and "workdir" in end and "\n" not in end


def test_the_figures_of_a_run(run_script, whole_run, capsys):
    workdir, _ = whole_run
    assert run_script(figures, f"--workdir={workdir}") is None
    names = ["confusion_matrices.png", "convergence.png", "class_weights.png", "transport.png"]
    out = capsys.readouterr().out
    for name in names:
        assert is_picture(workdir / name)
        assert f"written: {workdir / name}" in out


def test_runs_side_by_side(run_script, whole_run, tmp_path, capsys):
    workdir, _ = whole_run
    runs = f"--compare={workdir},{shutil.copytree(workdir, tmp_path / 'copy')}"
    assert run_script(figures, f"--workdir={tmp_path}", runs) is None
    for name in ("confusion", "convergence", "class_weights"):
        assert is_picture(tmp_path / f"{name}_compared.png")
    assert capsys.readouterr().out.count("written: ") == 3


@pytest.mark.parametrize("times", [2, 3])
def test_a_run_beside_itself(run_script, whole_run, tmp_path, times):
    runs = ",".join([str(whole_run[0])] * times)
    said = run_script(figures, f"--workdir={tmp_path}", f"--compare={runs}")
    twice = f"the runs to compare have {whole_run[0].resolve()} more than once"
    assert said == f"ValueError: {twice}; give each run once."
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["test_inputs", "test_labels"])
def test_runs_of_other_test_sets_are_not_compared(whole_run, tmp_path, monkeypatch, part):
    """Of the same classes and sizes, which say nothing of what they hold."""
    workdir, other = whole_run[0], shutil.copytree(whole_run[0], tmp_path / "other")

    def on_other_data(path):
        end = restore(path)
        dataset = end.prepared.dataset
        if path == other:
            dataset = dataset._replace(**{part: getattr(dataset, part)[::-1]})
        return end._replace(prepared=end.prepared._replace(dataset=dataset))

    monkeypatch.setattr(drawing, "restore", on_other_data)
    with pytest.raises(ValueError, match=f"different test sets, {workdir} and {other}; compare ru"):
        drawing.compare([workdir, other], tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def test_the_toy_of_55_examples(whole_run):
    results, labels = transport_toy(restore(whole_run[0], "stage1"))
    np.testing.assert_array_equal(np.bincount(labels), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    assert set(results) == {"feature cost", "label cost", "combined cost"}
    for cost, before, after, weights in results.values():
        n, m = cost.shape
        assert (n, m) == (55, 10)
        np.testing.assert_allclose(before.sum(axis=1), 1 / 55, rtol=1e-2)
        np.testing.assert_allclose(after.sum(axis=1), weights, rtol=0.05, atol=1e-4)
        for plan in (before, after):
            np.testing.assert_allclose(plan.sum(axis=0), 0.1, rtol=0.03)
        assert weights.sum() == pytest.approx(1, rel=1e-4)
        assert (cost * after).sum() < (cost * before).sum()
    # By the label cost every class comes to have the same mass.
    mass = np.bincount(labels, results["label cost"][3])
    np.testing.assert_allclose(mass, 0.1, atol=0.02)


def test_the_plan_of_a_run(whole_run):
    """Its own cost, measure and weights, over its whole training set."""
    end = restore(whole_run[0])
    learned = np.asarray(end.state.weights.values)
    results, labels = transport_of_run(end, learned)
    np.testing.assert_array_equal(labels, end.prepared.data.raw.labels)
    ((name, (cost, before, after, weights)),) = results.items()
    n = len(labels)
    assert name == "combined cost" and cost.shape == (n, 10)
    np.testing.assert_allclose(weights, learned / learned.sum(), rtol=1e-4)
    np.testing.assert_allclose(before.sum(axis=1), 1 / n, rtol=1e-2)
    np.testing.assert_allclose(after.sum(axis=1), weights, rtol=1e-2, atol=1e-5)
    for plan in (before, after):
        np.testing.assert_allclose(plan.sum(axis=0), 0.1, rtol=1e-2)
    # The label term: one where the classes differ.
    own = cost[np.arange(n), labels]
    assert own.max() < 1 <= np.delete(cost, 0, axis=1)[labels == 0].min()
    assert (cost * after).sum() < (cost * before).sum()


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
