"""A run directory belongs to one config and one process."""

import pytest

from experiments.configs import digits, modelnet10, sst
from experiments.program.experiment import Experiment
from experiments.runs.directory import ConfigMismatchError, check_place, check_unaltered, claim
from experiments.runs.first_stage import differing_first_stage
from experiments.runs.identity import HOW, factor_of, fingerprint_of, flatten
from experiments.runs.training import train
from otrw_jax.files import RunningError, alone_in, read_json, write_json
from tests.experiments.shared import with_fields


def test_two_processes_do_not_train_in_one_directory(experiment, tmp_path):
    with alone_in(tmp_path), pytest.raises(RunningError, match="another process is training in"):
        train(experiment, tmp_path, seed=0, subset_seed=0)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with alone_in(tmp_path):  # Free again.
        pass


def test_a_directory_refuses_another_config_and_names_what_differs(whole_run, experiment):
    workdir, results = whole_run
    other = with_fields(experiment, **{"stage1.batch_size": 16, "evaluate_every": 2})
    with pytest.raises(ConfigMismatchError) as caught:
        train(other, workdir, 0, 1)
    message = str(caught.value)
    assert f"{workdir} holds a run of another config" in message
    assert "stage1.batch_size is 32 there and 16 here" in message
    assert "evaluate_every is 1 there and 2 here" in message
    assert "subset_seed is 0 there and 1 here" in message
    assert message.count(" there and ") == 3
    assert read_json(workdir / "config.json")["stage1"]["batch_size"] == 32
    assert read_json(workdir / "results.json") == results


def test_fields_that_come_or_go_are_named(small_config, tmp_path):
    claim(tmp_path, small_config("ce"))
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    config = small_config("ce")
    with config.unlocked():
        del config.shots
        config.news = (1, 2)
    with pytest.raises(ConfigMismatchError) as caught:
        claim(tmp_path, config)
    assert "news is 'absent' there and [1, 2] here" in str(caught.value)
    assert "shots.few is 20 there and 'absent' here" in str(caught.value)


def test_a_run_that_never_trained_stands_in_nobodys_way(small_config, tmp_path):
    config = small_config("ce")
    config.stage1.batch_size = 5000
    with pytest.raises(ValueError, match="the batch size is 5000 and the training set has"):
        train(Experiment(config), tmp_path, 0, 0)
    config.stage1.update({"batch_size": 32, "epochs": 1})
    assert train(Experiment(config), tmp_path, 0, 0)["last"]["epoch"] == 1


@pytest.mark.parametrize(
    ("recipe", "option", "value", "differing"),
    [
        ("focal", "gamma", 5.0, ["options.focal.gamma"]),
        ("ldam_drw", "max_margin", 0.1, ["options.ldam_drw.max_margin"]),
        ("cb", "beta", 0.9, []),  # Of its second stage.
    ],
)
def test_options_count_where_a_first_stage_is_taken_over(
    small_config, tmp_path, recipe, option, value, differing
):
    one, other = (small_config(recipe) for _ in range(2))
    other.options[recipe][option] = value
    for name, config in (("one", one), ("other", other)):
        (tmp_path / name).mkdir()
        claim(tmp_path / name, config)
    assert differing_first_stage(tmp_path / "one", tmp_path / "other") == differing


def test_a_damaged_config_is_named(small_config, tmp_path):
    claim(tmp_path, small_config("ce"))
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"config\.json is damaged: .* restore it"):
        claim(tmp_path, small_config("ce"))


def begun(folder):
    """Makes a folder look like a run directory."""
    (folder / "checkpoints" / "1").mkdir(parents=True)


def test_a_directory_without_its_config_is_refused(small_config, tmp_path):
    begun(tmp_path)
    with pytest.raises(ConfigMismatchError, match=r"config\.json is gone, and the checkpoints"):
        claim(tmp_path, small_config("ce"))
    write_json(tmp_path / "config.json", [])
    with pytest.raises(ValueError, match=r"config\.json is damaged: it holds no config"):
        claim(tmp_path, small_config("ce"))
    assert read_json(tmp_path / "config.json") == []


def test_what_a_killed_first_save_left_is_no_run(small_config, tmp_path):
    (tmp_path / "checkpoints" / "1.orbax-checkpoint-tmp-0").mkdir(parents=True)
    claim(tmp_path, small_config("ce"))
    other = small_config("otrw_paper")
    claim(tmp_path, other)
    assert read_json(tmp_path / "config.json")["recipe"] == "otrw_paper"


def test_an_altered_config_is_refused(small_config, tmp_path):
    config = small_config("ce")
    claim(tmp_path, config)
    record = {"config": fingerprint_of(config.to_dict())}
    check_unaltered(tmp_path, record)
    config.keep_checkpoints += 1  # How it is done.
    claim(tmp_path, config)
    check_unaltered(tmp_path, record)
    for name in sorted(set(flatten(config.to_dict())) - set(HOW))[::7]:
        altered = flatten(config.to_dict())
        altered[name] = "other"
        write_json(tmp_path / "config.json", altered)
        with pytest.raises(ConfigMismatchError, match=r"config\.json is not the config by which"):
            check_unaltered(tmp_path, record)
    check_unaltered(tmp_path, {})  # Of earlier versions.


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("x", "x/seed_0"),  # A single run, then several seeds, or the controls.
        ("x", "x/table1/digits_if50/ce/seed_0"),  # `reproduce`.
        ("x", "x/ce/seed_0"),  # The demo.
        ("x/seed_0", "x"),
        ("x/seed_0", "x/seed_0/seed_1"),
        ("x/ce/seed_0", "x"),
        ("x/table1/digits_if50/ce/seed_0", "x"),
        ("x/other", "x"),
    ],
)
def test_runs_do_not_lie_in_one_another(there, here, small_config, tmp_path):
    begun(tmp_path / there)
    with pytest.raises(ConfigMismatchError, match=r"holds (a run of one seed|runs in folders)"):
        train(Experiment(small_config("ce")), tmp_path / here, 0, 0)
    assert not (tmp_path / here / "config.json").exists()
    assert not (tmp_path / here / ".lock").exists()


def test_runs_beside_one_another_are_none_of_each_others(tmp_path):
    for name in ("seed_0", "ce/seed_0", "single"):
        begun(tmp_path / name)
    for name in ("seed_1", "ce/seed_1", "cb/seed_0", "other", "seed_0", "single"):
        check_place(tmp_path / name)
    begun(tmp_path)  # One that is there goes on, wherever it lies.
    check_place(tmp_path)
    check_place(tmp_path / "single")


def test_how_a_run_is_done_may_differ(whole_run, experiment, tmp_path):
    values = {
        "data.data_dir": "elsewhere",
        "data.folder": "elsewhere",
        "data.lists": "elsewhere",
        "data.manual_dir": "elsewhere",
        "data.max_excluded": 1,
        "data.threads": 4,
        "encoder.weights": "elsewhere",
        "model.weights": "elsewhere",
        "save_every": 9,
        "checkpoint_every": 3,
        "keep_checkpoints": 7,
        "steps_per_call": 4,
        "devices": 2,
        "seeds": (1, 2),
        "seeds_at_once": 1,
        "stage1_from": "somewhere",
    }
    assert set(values) == set(HOW)
    claim(tmp_path, experiment.config)
    for name in ("encoder.weights", "model.weights"):  # Digits have none.
        del values[name]
    for name, value in values.items():
        claim(tmp_path, with_fields(experiment, **{name: value}).config)
    workdir, results = whole_run
    before = experiment.config
    try:
        other = with_fields(experiment, checkpoint_every=2, keep_checkpoints=1, steps_per_call=3)
        assert train(other, workdir, 0, 0) == results
    finally:
        claim(workdir, before)


def test_the_imbalance_of_every_kind_of_config():
    assert factor_of(digits.get_config("imbalance_factor=20")) == 20
    assert factor_of(sst.get_config("sst2,minority=50")) == 20
    assert factor_of(modelnet10.get_config("minority=4")) == 25
