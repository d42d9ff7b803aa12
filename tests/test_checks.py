"""Each mistake is a ValueError of one sentence; what may be is not refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax import checks


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "told"),
    [
        ({}, [-3, 0.5, np.float32(2), jnp.ones(())], [np.nan, np.inf, -np.inf], "finite"),
        ({"least": 0}, [0, 2.5], [-1, np.nan, np.inf], "0 or more and finite"),
        ({"above": 0}, [1e-9], [0, -1, np.nan], "above 0 and finite"),
        ({"least": 0, "below": 1}, [0, 0.99], [1, -0.1, np.nan], r"in \[0, 1\)"),
        ({"above": 0, "most": 1}, [0.1, 1], [0, 1.1], r"in \(0, 1\]"),
        (
            {"least": 1, "whole": True},
            [1, np.int64(3), np.array(2), jnp.int32(2)],
            [0, 2.5, 2.0, np.float32(2), jnp.ones(()), True],
            "1 or more and whole",
        ),
        ({"least": 0, "most": 4, "whole": True}, [0, 4], [5, 0.5], r"in \[0, 4\] and whole"),
    ],
)
def test_numbers(bounds, good, bad, told):
    for value in good:
        checks.check_number("there", "rate", value, **bounds)
    for value in bad:
        with pytest.raises(ValueError, match=rf"^there: rate is {value}; it must be {told}\.$"):
            checks.check_number("there", "rate", value, **bounds)


def test_some_of_many_names():
    assert checks.some(np.arange(3)) == "0, 1, 2"
    assert checks.some("abcd", 2, "; ") == "a; b; and 2 more"


def test_schedules_and_traced_numbers_are_let_through():
    checks.check_number("there", "rate", lambda step: np.nan)
    jax.jit(lambda rate: checks.check_number("there", "rate", rate) or rate)(np.nan)
    checks.check_finite("there", "weights", lambda step: np.nan)
    checks.check_finite("there", "weights", None)
    with pytest.raises(ValueError, match=r"there: weights are \[ 1. nan\]; they must be finite\."):
        checks.check_finite("there", "weights", np.array([1, np.nan]))


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([1, -2], "counts must be finite and at least 0"),
        ([1, np.nan], "counts must be finite and at least 0"),
        ([0, 0], "counts is 0 everywhere"),
        ([[1, 2]], r"counts has shape \(1, 2\)"),
        ([], r"counts has shape \(0,\)"),
    ],
)
def test_counts(counts, told):
    with pytest.raises(ValueError, match=rf"^there: {told}.*\.$"):
        checks.check_counts("there", np.array(counts))
    checks.check_counts("there", np.array([0.9, 0.1, 0]))
    with pytest.raises(ValueError, match=r"of proportions; give the numbers of examples\.$"):
        checks.check_counts("there", np.array([0.9, 0.1, 0]), whole=True)


@pytest.mark.parametrize("foreign", [-1, 3, 255])
@pytest.mark.parametrize("array", [np.array, jnp.array, list])
def test_a_label_of_no_class(foreign, array):
    with pytest.raises(ValueError, match=rf"^set: labels are .* from 0 to 2; {foreign} is none\.$"):
        checks.check_labels("set", array([0, 1, foreign]), 3)
    checks.check_labels("set", array([0, 1, 2]), 3)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "int64"])
def test_labels_of_any_integer_type(dtype):
    checks.check_labels("set", np.array([0, 2], dtype), 3)
    with pytest.raises(ValueError, match="3 is none"):
        checks.check_labels("set", np.array([0, 3], dtype), 3)


def test_labels_that_are_no_vector_of_whole_numbers():
    with pytest.raises(ValueError, match=r"set: labels are float64; give whole numbers\."):
        checks.check_labels("set", np.array([0.0, 1.0]), 3)
    with pytest.raises(ValueError, match=r"set: labels have shape \(2, 3\)"):
        checks.check_labels("set", np.eye(3, dtype=int)[:2], 3)
    with pytest.raises(ValueError, match=r"inputs have shape \(3, 4\) and labels \(2,\); give one"):
        checks.check_examples("set", {"a": np.zeros((3, 4))}, np.array([0, 1]), 2)
    checks.check_examples("set", None, np.array([0, 1]), 2)
