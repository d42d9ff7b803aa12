"""What a change of a config changes besides: the rate of a virtual step."""

import sys
from unittest import mock

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.cli import CONFIG
from experiments.configs.overrides import run_config
from experiments.studies.rows import row_config
from experiments.studies.tables import Row

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

RATE = "stage2.otrw_net.optimizer.learning_rate"
VIRTUAL = "stage2.otrw_net.choices.virtual_learning_rate"


def of_command_line(changes):
    arguments = [f"--config.{name}={value}" for name, value in changes.items()]
    argv = ["script", "--config=experiments/configs/digits.py:recipe=otrw_net", *arguments]
    with mock.patch.object(sys, "argv", argv), flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        flags.FLAGS(argv)
        return run_config(CONFIG)


def of_row(changes):
    return row_config(Row("otrw_net"), "digits", 50.0, changes)


@pytest.mark.parametrize("made", [of_command_line, of_row])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, 0.01), ({RATE: 0.3}, 0.3), ({RATE: 0.3, VIRTUAL: 0.02}, 0.02), ({VIRTUAL: 0.02}, 0.02)],
)
def test_a_virtual_step_has_the_networks_rate_unless_it_is_given_its_own(made, changes, expected):
    config = made(changes)
    assert config.stage2.otrw_net.choices.virtual_learning_rate == expected
    assert config.stage2.otrw_net.optimizer.learning_rate == changes.get(RATE, 0.01)
    assert config.stage2.otrw_paper.choices.virtual_learning_rate == 0.01


def test_a_rate_of_a_recipe_without_a_virtual_step_changes_alone():
    config = row_config(Row("cb"), "digits", 50.0, {"stage2.cb.optimizer.learning_rate": 0.3})
    assert config.stage2.cb.optimizer.learning_rate == 0.3
    assert config.stage2.otrw_paper.choices.virtual_learning_rate == 0.01
