"""The sentences on the best cells of the controls."""

import itertools

from experiments.documents.best_cells import best_cells
from experiments.studies.controls.grid import BASES, META_USES, TRANSPORTS


def cells(**errors):
    """A cell's held-out and test errors by `base_meta_ot`; all others are worse than any."""
    names = ("_".join(name) for name in itertools.product(BASES, META_USES, TRANSPORTS))
    found = {name: (90.0, [95.0, 95.0, 95.0]) for name in names} | errors
    return {
        name.replace("_", "/"): {"held_out_error": [held_out] * 3, "best_held_out": test}
        for name, (held_out, test) in found.items()
    }


def test_the_held_out_part_chooses_and_the_test_part_is_compared():
    made = cells(
        bs_merged_none=(20.0, [30.0, 31.0, 32.0]),
        la_none_none=(21.0, [33.0, 34.0, 35.0]),
        la_ten_none=(22.0, [10.0, 10.0, 10.0]),  # The best by the test part, which chooses nothing.
        ce_merged_global=(19.0, [29.0, 29.9, 31.1]),
        cb_none_paper=(25.0, [33.0, 35.0, 34.0]),
    )
    text = best_cells(made)
    assert "of 15 cells without OT “balanced softmax, meta set in the training set”" in text
    assert "of 45 with it “cross-entropy, meta set in the training set, *global*” (30.0" in text
    assert "less the first -1.0 ± 0.1 (3 seeds): better. Where the meta set serves OT alone" in text
    assert "of 5 cells without OT “logit-adjusted, meta set not used” comes first (34.0" in text
    assert "of 15 with it “class-balanced, meta set not used, *paper*”" in text
    assert text.endswith("+0.0 ± 1.0 (3 seeds): no difference shown.")


def test_records_without_held_out_errors_have_no_sentence():
    made = cells()
    del made["ce/none/none"]["held_out_error"]
    assert best_cells(made) == ""
