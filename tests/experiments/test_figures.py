"""Pictures of runs: of one, of runs side by side, of the toy problem and of a plan."""

import shutil

import numpy as np
import pytest

from experiments import figures
from experiments.pictures import drawing
from experiments.pictures.plans import transport_of_run, transport_toy
from experiments.program.experiment import Experiment
from experiments.runs.restoring import restore
from experiments.runs.training import train
from tests.experiments.shared import is_picture

pytestmark = [
    # By ml_collections, which loads the config file.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]


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


def test_data_that_were_moved_are_named(run_script, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(figures, "draw", lambda *args: given.append(args) or [])
    monkeypatch.setattr(figures, "compare", lambda *args: given.append(args) or [])
    run_script(figures, f"--workdir={tmp_path}", "--data_dir=moved")
    run_script(figures, f"--workdir={tmp_path}", "--data_dir=moved", f"--compare={tmp_path}")
    assert given == [(tmp_path, "moved"), ([tmp_path], tmp_path, "moved")]


@pytest.mark.parametrize("part", ["test_inputs", "test_labels"])
def test_runs_of_other_test_sets_are_not_compared(whole_run, tmp_path, monkeypatch, part):
    """Of the same classes and sizes, which say nothing of what they hold."""
    workdir, other = whole_run[0], shutil.copytree(whole_run[0], tmp_path / "other")

    def on_other_data(path, data_dir):
        end = restore(path, data_dir=data_dir)
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
