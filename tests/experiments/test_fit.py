"""`otrw_jax.fit` on the arrays and stages of a run gives what the run gave, bit for bit."""

import pytest

from otrw_jax import fit
from tests.experiments.shared import history_of

pytestmark = pytest.mark.usefixtures("rank_promotion")


def test_fit_gives_what_the_script_gives(experiment, whole_run, final_state, assert_same_bits):
    prepared = experiment.prepare(0)
    program = experiment.program(prepared)
    fitted = fit(
        program.model,
        prepared.data.raw,
        prepared.data.raw_meta,
        program.stages,
        test=prepared.test,
        prepare=program.preprocessing.evaluate,
        augment=program.preprocessing.train,
    )
    expected = [{k: v for k, v in r.items() if k != "held_out"} for r in history_of(whole_run[0])]
    assert fitted.history == expected
    state = final_state(experiment, whole_run[0])
    assert_same_bits(fitted.variables, state.variables)
    assert_same_bits(fitted.weights, state.weights.values.__array__())
