"""Cells of the controls: one of them against its method alone, and the whole script in small."""

import copy
import dataclasses
import re

import jax
import numpy as np
import optax
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import controls
from experiments.documents import controls as tables
from experiments.documents.results import document
from experiments.export import export
from experiments.program.experiment import Experiment
from experiments.recipes.optimizers import make_optimizer
from experiments.runs.open_run import Run
from experiments.runs.restoring import restore_first
from experiments.runs.training import train_together
from experiments.studies.controls import cells
from experiments.studies.controls.cells import ControlCells, selected_errors
from experiments.studies.records import read
from otrw_jax import PRESETS, effective_number_weights, erm, ot_reweight
from otrw_jax.files import read_json
from otrw_jax.training.features import given_features
from otrw_jax.training.loop import make_loop, run_stage
from otrw_jax.training.stages import Stage
from tests.experiments.studies.controls.test_kept import IDENTITY

pytestmark = pytest.mark.usefixtures("rank_promotion")

SEEDS = [0, 1]


@pytest.fixture(scope="module")
def made(small_config, tmp_path_factory):
    """Cells on two seeds of digits, trained for two epochs after three of the first stage."""
    config = small_config("ce")
    config.stage2.cb.epochs = 2
    experiment = Experiment(config)
    folder = tmp_path_factory.mktemp("controls")
    runs = [Run(folder / f"seed_{seed}", seed, seed) for seed in SEEDS]
    train_together(experiment, runs)
    firsts = [restore_first(experiment, run) for run in runs]
    program = experiment.program(firsts[0][0])
    return config, program, folder, firsts, ControlCells(config, program, SEEDS, firsts)


def alone(made, method, at, data):
    """Test errors by epoch of a method on the features of one seed."""
    config, program, _, firsts, all_cells = made
    head = config.stage2.cb
    loop = make_loop(Stage("head", method, 2, head.batch_size), lambda keys, z: z[:, 0])
    key = jax.random.fold_in(jax.random.key(SEEDS[at]), 3)
    state = loop.start(key, firsts[at][1], data[at])
    test = jax.tree.map(lambda x: x[at], all_cells._evaluated["test"])
    errors = []
    for _, end, _ in run_stage(loop, state, data[at], key):
        logits = program.model.logits(end.variables["params"]["head"], test.inputs)
        errors.append(float(100 * np.mean(np.argmax(logits, 1) != np.asarray(test.labels))))
    return errors


def test_a_cell_is_its_method_alone(made):
    """Class weights as numbers of a state; both seeds; the meta set in the training set or not."""
    config, program, _, firsts, all_cells = made
    model = given_features(program.model)
    for meta in ("none", "merged"):
        data = all_cells._data(meta, False)
        assert data[0].view.train.inputs is None
        extra = 0 if meta == "none" else 5
        counts = firsts[0][0].split.counts + extra
        np.testing.assert_array_equal(np.bincount(data[0].raw.labels), counts)
        found = all_cells._run(meta, "none", ("ce", "cb", "bs"), balanced=False)
        assert set(found) == {f"{base}/{meta}/none" for base in ("ce", "cb", "bs", "la")}
        method = erm(
            model,
            make_optimizer(config.stage2.cb.optimizer, 1),
            class_weights=effective_number_weights(counts),
            trainable="head/.*",
            batch_norm=False,
        )
        for at in range(2):
            errors = alone(made, method, at, data)
            result = found[f"cb/{meta}/none"]
            assert result["last"][at] == pytest.approx(errors[-1], abs=0.3)
            assert result["best_test"][at] == pytest.approx(min(errors), abs=0.3)


def test_a_cell_with_the_global_weights_and_the_meta_set_ten_times(made):
    config, program, _, _, all_cells = made
    found = all_cells._run("ten", "global", ("ce", "cb", "bs"), balanced=False)
    choices = dataclasses.replace(PRESETS["global"](10), meta_cross_entropy=10.0)
    method = ot_reweight(
        given_features(program.model),
        make_optimizer(config.stage2.cb.optimizer, 1),
        optax.sgd(0.1),
        10,
        choices,
    )
    errors = alone(made, method, 1, all_cells._data("ten", True))
    assert found["ce/ten/global"]["last"][1] == pytest.approx(errors[-1], abs=0.3)


def test_a_new_head_on_balanced_draws(made):
    found = made[-1]._run("none", "none", ("crt",), balanced=True)
    assert set(found) == {"crt/none/none"}
    assert all(2 < error < 90 for error in found["crt/none/none"]["last"])


def test_the_selected_errors_of_a_cell():
    """The best by the balanced accuracy, as of a run, and not by the error."""
    test = np.array([[30.0, 20.0], [10.0, 25.0], [20.0, 30.0]])
    on_test = np.array([[60.0, 70.0], [80.0, 75.0], [75.0, 70.0]])
    on_held_out = np.array([[95.0, 91.0], [94.0, 92.0], [93.0, 93.0]])
    held_out = np.array([[4.0, 9.0], [5.0, 8.0], [6.0, 7.0]])
    names = ("test", "test_balanced_accuracy", "held_out_balanced_accuracy", "held_out")
    parts = zip(test, on_test, on_held_out, held_out, strict=True)
    found = selected_errors([dict(zip(names, part, strict=True)) for part in parts])
    assert found["last"] == [20.0, 30.0]
    assert found["best_held_out"] == [30.0, 30.0]
    assert found["held_out_error"] == [4.0, 7.0]
    assert found["best_test"] == [10.0, 25.0]
    alone = {"test": test[0], "test_balanced_accuracy": on_test[0]}
    assert set(selected_errors([alone])) == {"last", "best_test"}


def test_the_script_and_its_document(made, tmp_path, monkeypatch, capsys):
    config, _, folder, _, _ = made
    for module in (cells, tables):
        monkeypatch.setattr(module, "META_USES", {"none": "not used"})
        monkeypatch.setattr(module, "TRANSPORTS", {"none": "no OT", "global": "global"})
    config.seeds = tuple(SEEDS)
    monkeypatch.setattr(controls, "run_config", lambda *_: config)
    command = ["controls", f"--workdir={folder}", f"--records={tmp_path}"]
    train = ControlCells._run

    def stopped_at_global(self, meta, ot, *bases, **how):
        if ot == "global":
            raise KeyboardInterrupt
        return train(self, meta, ot, *bases, **how)

    with flagsaver.flagsaver(), monkeypatch.context() as patched:
        flags.FLAGS(command)
        patched.setattr(ControlCells, "_run", stopped_at_global)
        with pytest.raises(KeyboardInterrupt):
            controls.main([])
        bound_to = read_json(folder / "cells.json")["of"]
        assert [*bound_to] == [*IDENTITY] and len(set(bound_to["first stages"])) == 2
        config.stage2.cb.epochs = 1
        with pytest.raises(ValueError, match=r"cells.json holds cells of other config; choose"):
            controls.main([])
        config.stage2.cb.epochs = 2
    assert not (tmp_path / "controls.jsonl").exists()
    capsys.readouterr()
    with flagsaver.flagsaver():
        flags.FLAGS(command)
        controls.main([])
    said = capsys.readouterr().out
    assert "5 of 10 cells are kept" in said and "10 cells, seeds 0, 1, in" in said
    assert not (folder / "cells.json").exists()
    (record,) = read(tmp_path / "controls.jsonl")
    assert len(record["cells"]) == 10 and record["seeds"] == SEEDS
    text = document(tmp_path)
    assert text == document(tmp_path)
    plain, ours = (np.array(record["cells"][f"cb/none/{ot}"]["last"]) for ot in ("none", "global"))
    difference = f"{np.mean(ours - plain):+.1f} ± {np.std(ours - plain, ddof=1):.1f}"
    assert any("class-balanced" in line and difference in line for line in text.splitlines())
    # From network files of the same first stages the same cells, here without a stop.
    for seed in SEEDS:
        export(folder / f"seed_{seed}", tmp_path / f"ce_seed{seed}.safetensors")
    config.stage1_from = str(tmp_path / "ce_seed{seed}.safetensors")
    with flagsaver.flagsaver():
        flags.FLAGS(["controls", f"--workdir={tmp_path / 'files'}", f"--records={tmp_path}"])
        controls.main([])
    (_, again) = read(tmp_path / "controls.jsonl")
    assert again["cells"] == record["cells"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.meta_per_class", 0, "data.meta_per_class is 0, and the controls need a meta set"),
        ("stage2.cb.levers.ema", 0.9, "stage2.cb.levers.ema is 0.9; the controls train heads"),
        ("stage2.otrw_global.levers.smoothing", 0.1, "levers.smoothing is 0.1; the controls"),
        (
            "stage2.otrw_paper.weight_optimizer.milestones",
            (5,),
            "milestones is (5,); each must lie after the warm-up of 0 epochs and before the 2",
        ),
    ],
)
def test_what_the_controls_cannot_do_is_refused_before_the_first_stages(
    made, field, value, message
):
    config, program, *_ = made
    config = copy.deepcopy(config)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=re.escape(message)):
        ControlCells(config, program, [0], [])


def test_the_rates_of_cells_fall_by_the_epoch(made):
    """Two epochs, of which the second has no rate to speak of, end like one."""
    config, program, _, firsts, _ = made
    errors = []
    for epochs, milestones in ((1, ()), (2, (1,))):
        changed = copy.deepcopy(config)
        changed.stage2.cb.epochs = epochs
        changed.stage2.cb.optimizer.update(
            {"learning_rate": 0.1, "milestones": milestones, "decay": 1e-9, "momentum": 0.0}
        )
        found = ControlCells(changed, program, SEEDS, firsts)._run("none", "none", ("cb",), False)
        errors.append(found["cb/none/none"]["last"])
    assert errors[0] == errors[1]
