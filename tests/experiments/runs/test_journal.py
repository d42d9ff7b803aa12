"""What a reporter says of OT problems that did not converge."""

import json

from experiments.runs.display import Display
from experiments.runs.journal import Reporter


def record(number, share):
    return {
        "number": number,
        "stage": "stage2",
        "loss": 1.0,
        "train_error": 10.0,
        "ot_unconverged": share,
        "ot_marginal_error": 0.002,
        "test": {"error": 5.0},
    }


def test_problems_that_did_not_converge_are_told_once_in_a_run(tmp_path, capsys):
    display = Display("run", "preparing the data")
    display.begin(1, 5)
    reporter = Reporter(tmp_path, "run", [record(1, 0.0)], display)
    records = [record(2, 0.0), record(3, 0.25), record(4, 0.5)]
    for one in records:
        reporter.epoch(one)
    reporter.close()
    lines = capsys.readouterr().out.splitlines()
    warnings = [line for line in lines if "did not converge" in line]
    assert len(warnings) == 1 and warnings[0].startswith(
        "run: 25.0 % of the OT problems of epoch 3"
    )
    assert lines[-1].endswith("50.0 % of OT problems unconverged (marginal error 2.0e-03)")
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kept == [record(1, 0.0), *records]
    resumed = Reporter(tmp_path, "run", kept, display)
    resumed.epoch(record(5, 0.5))
    resumed.close()
    display.close()
    assert "did not converge" not in capsys.readouterr().out
