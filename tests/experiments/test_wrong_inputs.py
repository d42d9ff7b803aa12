"""Wrong configs and command lines: each ends in a sentence before data are loaded."""

import contextlib
import pathlib
import re
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import controls, demo, evaluate, figures, report, reproduce
from experiments import train as train_script
from experiments.cli import run_app
from experiments.configs import cifar_lt, digits, modelnet10, sst
from experiments.program import experiment
from experiments.program.experiment import Experiment

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

NAN, INF = float("nan"), float("inf")
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# Field of the config of digits, value, and what is said after "FIELD is VALUE; it must be".
FIELDS = [
    ("seed", -1, "a whole number from 0 to"),
    ("seed", 2**32, "a whole number from 0 to"),
    ("subset_seed", -3, "a whole number from 0 to"),
    ("seeds", (0, 1.5), "a tuple in which each is a whole number from 0 to"),
    ("seeds", (0, -1), "a tuple in which each is a whole number from 0 to"),
    ("seeds", ("a",), "a tuple in which each is a whole number from 0 to"),
    ("evaluate_every", 0, "a whole number of 1 or more"),
    ("checkpoint_every", 0, "a whole number of 1 or more"),
    ("keep_checkpoints", 0, "a whole number of 1 or more"),
    ("keep_checkpoints", -2, "a whole number of 1 or more"),
    ("devices", -1, "a whole number of 0 or more"),
    ("seeds_at_once", -2, "None, or a whole number of 0 or more"),
    ("steps_per_call", -5, "None, or a whole number of 0 or more"),
    ("recalibration_epochs", -1, "a whole number of 0 or more"),
    ("shots.few", -1, "a whole number of 0 or more"),
    ("data.imbalance_factor", 0.5, "None, or 1 or more"),
    ("data.imbalance_factor", NAN, "None, or 1 or more"),
    ("data.imbalance_factor", INF, "None, or 1 or more"),
    ("data.imbalance_factor", -10.0, "None, or 1 or more"),
    ("data.profile", "linear", "one of exponential, step"),
    ("data.padding", "mirror", "one of reflect, zero"),
    ("data.meta_per_class", -1, "a whole number of 0 or more"),
    ("data.held_out_per_class", -5, "a whole number of 0 or more"),
    ("model.hidden", (-1,), "a tuple in which each is a whole number of 1 or more"),
    ("model.hidden", (128, 0), "a tuple in which each is a whole number of 1 or more"),
    ("model.hidden", (12.5,), "a tuple in which each is a whole number of 1 or more"),
    ("stage1.epochs", 0, "a whole number of 1 or more"),
    ("stage1.epochs", -1, "a whole number of 1 or more"),
    ("stage1.batch_size", 0, "a whole number of 1 or more"),
    ("stage1.optimizer.name", "lion", "one of sgd, adam"),
    ("stage1.optimizer.schedule", "linear", "one of steps, cosine"),
    ("stage1.optimizer.learning_rate", 0.0, "above 0"),
    ("stage1.optimizer.learning_rate", -0.1, "above 0"),
    ("stage1.optimizer.learning_rate", NAN, "above 0"),
    ("stage1.optimizer.learning_rate", INF, "above 0"),
    ("stage1.optimizer.momentum", 1.0, "a number in [0, 1)"),
    ("stage1.optimizer.momentum", -0.9, "a number in [0, 1)"),
    ("stage1.optimizer.momentum", 9.0, "a number in [0, 1)"),
    ("stage1.optimizer.weight_decay", -5e-4, "0 or more"),
    ("stage1.optimizer.weight_decay", NAN, "0 or more"),
    ("stage1.optimizer.decay", 0.0, "a number in (0, 1]"),
    ("stage1.optimizer.decay", 10.0, "a number in (0, 1]"),
    ("stage1.optimizer.milestones", (0,), "a tuple in which each is a whole number of 1 or more"),
    ("stage1.optimizer.milestones", (2.5,), "a tuple in which each is a whole number of 1 or"),
    ("stage1.optimizer.warmup_epochs", -1, "a whole number of 0 or more"),
    ("stage1.levers.mixup", -0.2, "0 or more"),
    ("stage1.levers.mixup", INF, "0 or more"),
    ("stage1.levers.smoothing", 1.0, "a number in [0, 1)"),
    ("stage1.levers.smoothing", -0.1, "a number in [0, 1)"),
    ("stage1.levers.smoothing_tail", -0.5, "None, or a number in [0, 1)"),
    ("stage1.levers.sam", -0.05, "0 or more"),
    ("stage1.levers.sam", NAN, "0 or more"),
    ("stage1.levers.ema", 1.0, "a number in [0, 1)"),
    ("stage1.levers.ema", 1.5, "a number in [0, 1)"),
    ("stage2.otrw_global.feature_copies", -1, "a whole number of 0 or more"),
    ("stage2.cb.feature_copies", -1, "a whole number of 0 or more"),
    ("stage2.cb.trainable", "head/(.*", "a regular expression over paths of parameters"),
    ("stage2.otrw_global.choices.trainable", "*", "a regular expression over paths of"),
    ("stage2.otrw_global.choices.measure_size", 0, "a whole number of 1 or more"),
    ("stage2.otrw_global.choices.feature_weight", -1.0, "0 or more"),
    ("stage2.otrw_global.choices.label_weight", NAN, "None, or 0 or more"),
    ("stage2.otrw_global.choices.virtual_learning_rate", INF, "0 or more"),
    ("stage2.otrw_global.choices.meta_cross_entropy", -10.0, "0 or more"),
    ("stage2.otrw_global.choices.ot.epsilon", 0.0, "above 0"),
    ("stage2.otrw_global.choices.ot.epsilon", NAN, "above 0"),
    ("stage2.otrw_global.choices.ot.max_iterations", 0, "a whole number of 1 or more"),
    ("stage2.otrw_global.choices.ot.threshold", -1.0, "0 or more"),
    ("stage2.otrw_global.weight_optimizer.learning_rate", -1.0, "0 or more"),
    ("options.focal.gamma", -1.0, "0 or more"),
    ("options.focal.gamma", NAN, "0 or more"),
    ("options.cb_ce.beta", 1.0, "a number in [0, 1)"),
    ("options.cb.beta", -0.1, "a number in [0, 1)"),
    ("options.logit_adjusted.tau", -1.0, "0 or more"),
    ("options.tau_norm.tau", -0.5, "None, or 0 or more"),
    ("options.hu.tau", 0.5, "1 or more"),
    ("options.ldam.max_margin", -0.5, "a number in [0, 2]"),
    ("options.ldam_drw.max_margin", 50.0, "a number in [0, 2]"),
    ("options.metasaug_ldam.max_margin", -0.5, "0 or more"),
    ("options.ldam.scale", 0.0, "above 0"),
    ("options.ldam_drw.start", 1.5, "a number in [0, 1]"),
    ("options.mcw_ce.start", -0.1, "a number in [0, 1]"),
    ("options.ib.alpha", 0.0, "above 0"),
    ("options.disalign.rho", -1.0, "0 or more"),
    ("options.meta_logistic.l2", 0.0, "above 0"),
    ("options.ot_correction.epsilon", 0.0, "above 0"),
    ("options.ot_correction.iterations", 0, "a whole number of 1 or more"),
    ("options.metasaug_ce.strength", -0.25, "0 or more"),
    ("options.metasaug_focal.covariance", "diag", "one of full, diagonal"),
    ("options.l2rw.meta_batch", 0, "a whole number of 1 or more"),
    ("options.mwn.hidden", 0, "a whole number of 1 or more"),
    ("options.mwn.net_learning_rate", 0.0, "above 0"),
    ("options.mwn.net_weight_decay", -1.0, "0 or more"),
    ("options.otrw_net.hidden", -8, "a whole number of 1 or more"),
    ("options.balanced_meta_softmax.rate_learning_rate", -0.01, "above 0"),
]

# Several fields of a config, and a part of the sentence.
TOGETHER = [
    (digits, {"seeds": (0, 1, 0)}, "seeds=(0, 1, 0) has one twice"),
    (digits, {"shots.few": 200}, "shots.few is 200 and shots.many is 100"),
    (digits, {"recalibration_epochs": 1}, "'mlp', which keeps no batch statistics"),
    (digits, {"stage1.optimizer.warmup_epochs": 60}, "warmup_epochs is 60, and its stage has 60"),
    (digits, {"stage1.optimizer.warmup_epochs": 61}, "it must be shorter"),
    (digits, {"stage1.optimizer.milestones": (60,)}, "milestones is (60,); each must lie after"),
    (digits, {"stage1.optimizer.milestones": (40, 20)}, "each must be later than the one before"),
    (digits, {"stage1.optimizer.milestones": (20, 20)}, "each must be later than the one before"),
    (cifar_lt, {"stage1.epochs": 40}, "stage1.optimizer.milestones is (160, 180); each must lie"),
    (cifar_lt, {"stage1.optimizer.schedule": "cosine"}, "a cosine has no milestones"),
    (cifar_lt, {"stage1.optimizer.warmup_epochs": 170}, "after the warm-up of 170 epochs"),
    (
        digits,
        {"stage1.optimizer.nesterov": True, "stage1.optimizer.momentum": 0.0},
        "stage1.optimizer.nesterov needs a momentum",
    ),
    (digits, {"stage1.levers.smoothing_tail": 0.1}, "stage1.levers.smoothing_tail is 0.1"),
    (digits, {"stage2.otrw_paper.choices.measure": "x"}, "stage2.otrw_paper.choices: OTRew"),
    (digits, {"stage2.otrw_paper.choices.simplex": "x"}, "stage2.otrw_paper.choices: OTRew"),
    (digits, {"stage2.otrw_paper.choices.sampling": True}, "set weighting='global'"),
    (digits, {"stage2.otrw_paper.choices.ot.gradient": "x"}, "EntropicOT.gradient is 'x'"),
    (cifar_lt, {"model.depth": 33}, "model.depth is 33; it must be 6 n + 2"),
    (cifar_lt, {"model.width": 0}, "model.width is 0; it must be a whole number of 1 or more"),
    (cifar_lt, {"model.dtype": "float16"}, "it must be one of float32, bfloat16"),
    (modelnet10, {"data.points": 0}, "data.points is 0; it must be a whole number from 1 to 1024"),
    (modelnet10, {"data.points": 2048}, "data.points is 2048"),
    (modelnet10, {"data.test_per_class": -1}, "data.test_per_class is -1"),
    (modelnet10, {"data.counts": (0, 100)}, "data.counts is (0, 100)"),
    (modelnet10, {"model.level1.radius": 0.0}, "model.level1.radius is 0.0; it must be above 0"),
    (modelnet10, {"model.level2.neighbours": 0}, "model.level2.neighbours is 0"),
    (modelnet10, {"model.widths": (256, -1)}, "model.widths is (256, -1)"),
    (sst, {"data.first": -1}, "data.first is -1; it must be a whole number of 0 or more"),
    (sst, {"data.extra_per_class": -1}, "data.extra_per_class is -1"),
    (sst, {"encoder.max_length": 0}, "encoder.max_length is 0"),
    (sst, {"encoder.fine_tuning.epochs": -1}, "encoder.fine_tuning.epochs is -1"),
    (sst, {"encoder.fine_tuning.batch_size": 0}, "encoder.fine_tuning.batch_size is 0"),
    (sst, {"encoder.fine_tuning.learning_rate": NAN}, "fine_tuning.learning_rate is nan"),
    (digits, {"recipe": "otrw_papr"}, "did you mean 'otrw_paper'?"),
]

DIGITS = "--config=experiments/configs/digits.py"
CIFAR = "--config=experiments/configs/cifar_lt.py"
# Script, arguments, and a part of the sentence that it exits with.
LINES = [
    (train_script, [DIGITS, "--config.seeds=0,", "1,", "2"], "'1, 2' stands alone and belongs to"),
    (train_script, [DIGITS, "--config.seeds=0,1.5"], "seeds is (0, 1.5); it must be"),
    (train_script, [DIGITS, "--config.seeds=0,-1"], "seeds is (0, -1); it must be"),
    (train_script, [DIGITS, "--seeds=0,1,2"], "--seeds is no flag of this script; give --config."),
    (train_script, [DIGITS, "--records=x"], "--records is no flag of this script; leave it out."),
    (train_script, [DIGITS, "--workdir="], "flag --workdir=: it is empty; name a path."),
    (train_script, [DIGITS, "--workdir=~nobody_is_here/x"], "and there is no such user."),
    (train_script, [], "--config is missing; give it, as --help shows."),
    (train_script, ["--config=experiments/configs/digit.py"], "did you mean experiments/configs/"),
    (train_script, ["--config=experiments/configs/common.py"], "is no config file; did you mean"),
    (train_script, ["--config=README.md"], "is no config file; did you mean"),
    (train_script, [f"{DIGITS}:recip=ce"], "unknown config argument 'recip'; did you mean 'rec"),
    (train_script, [f"{DIGITS}:imbalance_factor=x"], "imbalance_factor='x' is not of type float."),
    (train_script, [DIGITS, "--config.stage1.epoch=3"], "no field 'epoch'; did you mean 'epochs'?"),
    (train_script, [DIGITS, "--config.stage3.epochs=3"], "no field 'stage3'; did you mean 'sta"),
    (train_script, [DIGITS, "--config.stage1.epochs=many"], "it must be a whole number."),
    (train_script, [DIGITS, "--config.stage1.epochs=2.5"], "it must be a whole number."),
    (train_script, [DIGITS, "--config.data.augment=maybe"], "it must be True or False."),
    (train_script, [DIGITS, "--config.data.imbalance_factor=x"], "it must be a number."),
    (train_script, [DIGITS, "--config.stage1=3"], "is not a dict."),
    (train_script, [DIGITS, "--num_processes=0"], "--num_processes=0: 0 is not a positive integer"),
    (train_script, [DIGITS, "--process_id=1"], "several processes need all of --coordinator"),
    (train_script, [DIGITS, "--config.data.name=digit"], "'digit'; did you mean 'digits'?"),
    (train_script, [DIGITS, "--config.data.name=cifar10"], "choose a config file of 'cifar10'."),
    (
        train_script,
        [f"{DIGITS}:recipe=focal", "--config.recipe=ce", "--config.options.focal.gamma=5"],
        "--config.options.focal.gamma is a field of focal, and the run's recipe is ce; leave it ou",
    ),
    (
        train_script,
        [DIGITS, "--config.stage2.otrw_net.epochs=1"],
        "is a field of otrw_net, and the run's recipe is otrw_global; leave it out, or give --con",
    ),
    (
        train_script,
        [DIGITS, "--config.seeds=0,1", "--config.seed=3"],
        "--config.seed has no meaning beside seeds=(0, 1), each of which is both; leave one",
    ),
    (
        train_script,
        [f"{CIFAR}:protocol=short", "--config.data.name=cifar100"],
        "fields are those for 'cifar10'; give --config=experiments/configs/cifar_lt.py:protocol="
        "short,dataset=cifar100.",
    ),
    (
        train_script,
        ["--config=experiments/configs/sst.py:sst2,minority=20", "--config.data.name=sst5"],
        "fields are those for 'sst2'; give --config=experiments/configs/sst.py:sst5,minority=20.",
    ),
    (
        train_script,
        ["--config=experiments/configs/modelnet10.py", "--config.model.name=pointnet"],
        "for 'pointnet2'; give --config=experiments/configs/modelnet10.py:backbone=pointnet.",
    ),
    (
        train_script,
        [DIGITS, "--config.imbalance_factor=10"],
        "has no field 'imbalance_factor', which is an argument: give --config=experiments/configs/"
        "digits.py:imbalance_factor=10.",
    ),
    (
        train_script,
        [f"{CIFAR}:protocol=paper,recipe=ce", "--config.protocol=short"],
        "give --config=experiments/configs/cifar_lt.py:recipe=ce,protocol=short.",
    ),
    (controls, [DIGITS, "--config.data.meta_per_class=0"], "the controls need a meta set"),
    (controls, [DIGITS, "--config.stage2.cb.levers.ema=0.9"], "the controls train heads without"),
    (controls, [DIGITS, "--config.stage2.crt.epochs=3"], "has no meaning for this script, which f"),
    (controls, [DIGITS, "--config.recipe=cb"], "has no meaning for this script, which follows sta"),
    (controls, [DIGITS, "--config.data.name=cifar10"], "choose a config file of 'cifar10'."),
    (controls, [DIGITS, "--config.seeds=0,1", "--config.seed=3"], "--config.seed has no meaning"),
    (controls, [DIGITS, "--config.stage2.cb.epochs=0"], "stage2.cb.epochs is 0; it must be"),
    (evaluate, ["--seeds=0"], "--seeds is no flag of this script; leave it out."),
    (evaluate, [DIGITS], "--config is no flag of this script; leave it out."),
    (evaluate, ["stage1"], "'stage1' stands alone and belongs to no flag"),
    (evaluate, [], "none holds no run; train first."),
    (evaluate, ["--weights="], "flag --weights=: it is empty; name a path."),
    (evaluate, ["--workdirr=x"], "Unknown command line flag 'workdirr'. Did you mean: workdir"),
    (figures, ["--compare=/nowhere/a,/nowhere/b"], "/nowhere/a holds no run; train first."),
    (figures, ["--seeds=1"], "--seeds is no flag of this script; leave it out."),
    (demo, ["--seeds=a"], "--seeds=a must be whole numbers, as in 0,1,2."),
    (demo, ["--seeds=-1"], "--seeds=-1 must be whole numbers from 0 to 4294967295."),
    (demo, ["--manual_dir=/x"], "--manual_dir=/x has no meaning for --data=digits; leave it out."),
    (demo, ["--data=mnist"], "--data=mnist: value should be one of"),
    (report, ["x"], "'x' stands alone and belongs to no flag"),
    (reproduce, [], "name one table: digits, table1"),
    (reproduce, ["table9"], "name one table: digits, table1"),
    (reproduce, ["digits", "--recipes=cee"], "digits has no row 'cee'; did you mean 'ce'?"),
    (reproduce, ["digits", "--set=stage1.epochs"], "must be of the form name=value."),
]
REQUIRED = {
    train_script: ("config", "workdir"),
    controls: ("config", "workdir"),
    evaluate: ("workdir",),
    figures: ("workdir",),
}


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    """Makes the loading of data a failure."""

    def load(config):
        pytest.fail(f"the data set {config.data.name} is loaded before the config is checked")

    monkeypatch.setattr(experiment, "Source", load)


def told(config, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        Experiment(config)
    assert str(caught.value).endswith((".", "?")) and "\n" not in str(caught.value)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(("name", "value", "range_"), FIELDS)
def test_a_field_out_of_its_range(name, value, range_):
    config = digits.get_config()
    config.update_from_flattened_dict({name: value})
    told(config, f"{name} is {value!r}; it must be {range_}")


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(("family", "fields", "message"), TOGETHER)
def test_fields_that_do_not_go_together(family, fields, message):
    config = family.get_config()
    config.update_from_flattened_dict(fields)
    told(config, message)


@pytest.mark.parametrize(("script", "arguments", "message"), LINES)
def test_a_wrong_command_line(script, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    if not any("data.name" in argument for argument in arguments):
        monkeypatch.setattr(experiment, "Source", lambda config: pytest.fail("data are loaded"))
    workdir = tmp_path / "none"
    given = [f"--workdir={workdir}"] if script is not report else []
    given = [] if any(a.startswith("--workdir=") for a in arguments) else given
    with flagsaver.flagsaver(), contextlib.ExitStack() as parsed:
        flags.FLAGS.unparse_flags()
        parsed.callback(flags.FLAGS.mark_as_parsed)
        monkeypatch.setattr(sys, "argv", [script.__name__, *given, *arguments])
        with pytest.raises(SystemExit) as end:
            run_app(script.main, *REQUIRED.get(script, ()), arguments=script is reproduce)
    said = end.value.code
    assert isinstance(said, str) and message in said and "\n" not in said, said
    assert said.rstrip().endswith((".", "?"))
    assert not workdir.exists()


def test_the_tables_are_long_enough():
    assert len(FIELDS) + len(TOGETHER) + len(LINES) >= 120
