"""The choices of OT: the problem's, which both algorithms have, and those of kept weights."""

import dataclasses

import jax
import optax
import pytest

from otrw_jax import PRESETS, EntropicOT, OTProblem, OTReweighting, ot_weight_net
from otrw_jax.methods.ot.problem import problem_alone
from otrw_jax.ot.nets import MLPWeightNet
from tests.methods import problem
from tests.methods.problem import MODEL, NUM_CLASSES, assert_trees_equal

# What run directories hold under `choices`, whichever the algorithm.
CHOICES = {
    "batch_norm": True,
    "cost": "combined",
    "feature_weight": 1.0,
    "features": "virtual",
    "from_scratch": False,
    "initial": "uniform",
    "label_weight": 1.0,
    "measure": "prototype",
    "measure_size": 10,
    "meta_batch_norm": False,
    "meta_cross_entropy": 0.0,
    "meta_features": "step",
    "ot": {"epsilon": 0.1, "gradient": "implicit", "max_iterations": 200, "threshold": 1e-05},
    "problem": "batch",
    "reduction": "sum",
    "sampling": False,
    "second_order": False,
    "simplex": "normalize",
    "trainable": ".*",
    "virtual_learning_rate": 2e-5,
    "weighting": "learned",
}
KEPT = {"weighting", "initial", "simplex", "from_scratch", "sampling", "problem"}


def test_run_directories_hold_the_fields_of_both():
    paper = PRESETS["paper"](NUM_CLASSES)
    fields = dataclasses.asdict(paper)
    del fields["ot"]["newton"]  # How a problem is solved, which configs do not hold.
    assert fields == CHOICES
    assert OTReweighting(**{**CHOICES, "ot": EntropicOT(**CHOICES["ot"])}) == paper
    shared = {field.name for field in dataclasses.fields(OTProblem)}
    assert shared == CHOICES.keys() - KEPT
    assert problem_alone("net", paper) == OTProblem()
    changed = dataclasses.replace(paper, measure="whole", ot=EntropicOT(epsilon=0.2))
    assert problem_alone("net", changed) == OTProblem(measure="whole", ot=EntropicOT(epsilon=0.2))
    assert problem_alone("net", OTProblem(cost="label")) == OTProblem(cost="label")


def test_a_net_takes_either():
    def start(config):
        method = ot_weight_net(
            MODEL, optax.sgd(0.1), MLPWeightNet(4), optax.sgd(0.1), NUM_CLASSES, config
        )
        data = problem.make_data()
        return method.init(jax.random.key(0), problem.make_variables(), data)

    fields = {"measure": "whole", "meta_features": "refresh", "trainable": "head/.*"}
    assert_trees_equal(start(OTReweighting(**fields)), start(OTProblem(**fields)))


@pytest.mark.parametrize("kind", [OTProblem, OTReweighting])
def test_errors_name_the_class(kind):
    with pytest.raises(ValueError, match=rf"^{kind.__name__}\.cost is 'cosine'; choose one of"):
        kind(cost="cosine")
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: measure_size is 0; it must be"):
        kind(measure_size=0)


def test_a_problem_has_no_kept_weights():
    with pytest.raises(TypeError, match="unexpected keyword argument 'simplex'"):
        OTProblem(simplex="none")
