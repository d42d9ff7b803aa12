"""What the tables of large sets need: counts by hand, and what the script refuses."""

import itertools
import sys
import types

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import scaling
from experiments.benchmarks import large_sets
from experiments.benchmarks.large_sets import Cost, costs
from experiments.cli import run_app

pytestmark = pytest.mark.usefixtures("rank_promotion")


def test_hours_are_those_of_steps_and_refreshes():
    cost = Cost("stage2", epochs=10, steps=100, seconds=0.5, refresh=22.0, memory=0)
    assert cost.hours == 10 * 72 / 3600


def test_a_head_on_places():
    (cost,) = costs("table3", "crt", 730, width=8)
    assert (cost.name, cost.epochs, cost.steps) == ("stage2", 10, 62_500 // 256)
    assert cost.seconds > 0 and cost.refresh >= 0
    # Training features, of two bytes a number, with their labels; the rest is small.
    least = 62_500 * (2 * 8 + 4)
    assert least < cost.memory < 2 * least


def test_what_was_made_stands_for_the_whole_list(monkeypatch):
    ticking = types.SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(large_sets, "time", ticking)
    (cost,) = costs("table3", "crt", 730, width=8)
    assert cost.seconds == 1 / 2  # Of 730 examples, two batches of 256.
    assert cost.refresh == pytest.approx(62_500 / 730)


def test_of_a_long_epoch_some_steps_are_timed(monkeypatch):
    """What a call has to do once is not counted: calls of one step take 4 s, of two 7."""
    (whole,) = costs("table3", "otrw_global", 1825, width=8)
    monkeypatch.setattr(large_sets, "CALLS", (1, 2))
    monkeypatch.setattr(large_sets, "LONG", 10)
    seconds = {1: 4.0, 2: 7.0}

    def timed(loop, key, variables, data):
        parts, tick = [], (lambda part: parts.append(part))
        loop.epoch(loop.start(key, variables, data), data, key, tick)
        return seconds[round(7 / (len(parts) + 1))]  # Of the made epoch's 1825 // 256 steps.

    monkeypatch.setattr(large_sets, "_seconds_of_a_call", timed)
    (cost,) = costs("table3", "otrw_global", 1825, width=8)
    assert cost.seconds == 3 and cost.memory == whole.memory
    monkeypatch.setattr(large_sets, "LONG", 22)  # The made epoch of 21 s is timed whole.
    (cost,) = costs("table3", "otrw_global", 1825, width=8)
    assert 0 < cost.seconds < 3


@pytest.mark.parametrize(("ticks", "seconds"), [(2, 0.0), (3, 1.0), (9, 1.0)])
def test_a_call_is_timed_that_compiles_nothing(monkeypatch, ticks, seconds):
    """The third, between whose ends the clock ticks once; none where there is no fourth."""
    ticking = types.SimpleNamespace(perf_counter=itertools.count(0.0).__next__)
    monkeypatch.setattr(large_sets, "time", ticking)
    loop = types.SimpleNamespace(
        start=lambda *_: None,
        epoch=lambda state, data, key, tick: [tick(0.0) for _ in range(ticks)],
    )
    assert large_sets._seconds_of_a_call(loop, jax.random.key(0), None, None) == seconds


def test_a_method_that_reads_its_inputs_has_them_in_four_bytes_too():
    (head,), (whole,) = (costs("table3", row, 730, width=8) for row in ("ce", "otrw_global"))
    assert whole.memory - head.memory >= 4 * 8 * 62_500
    assert whole.refresh > 0 and head.name == "stage1"


def call(monkeypatch, *arguments):
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        monkeypatch.setattr(sys, "argv", ["scaling", *arguments])
        try:
            run_app(scaling.main, keep_compiled=False)
        except SystemExit as end:
            return end.code
        finally:
            flags.FLAGS.mark_as_parsed()


def test_the_text_goes_between_its_markers(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(large_sets, "WIDTH", 8)
    monkeypatch.setattr(
        large_sets, "costs", lambda name, row, made: [Cost("stage1", 3, 244, 0.1, 0.0, 10**9)]
    )
    monkeypatch.setattr(large_sets, "encode_seconds", lambda name, side: 0.01)
    monkeypatch.setattr(large_sets, "decode_seconds", lambda: 0.004)
    monkeypatch.setattr(large_sets, "cores", lambda: 2)
    page = tmp_path / "page.md"
    page.write_text("# Large\n\n<!-- table3:begin -->\n<!-- table3:end -->\n\nEnd\n")
    assert call(monkeypatch, "--tables=table3", "--rows=ce", f"--markdown={page}") is None
    text = page.read_text()
    assert text.startswith("# Large") and text.endswith("<!-- extraction:end -->\n")
    row = next(line for line in text.splitlines() if "`ce`" in line)
    assert [c.strip() for c in row.split("|")[2:5]] == ["stage1", "3", "244"] and "1 GB" in row
    (extraction,) = (line for line in text.splitlines() if line.startswith("| Places-LT"))
    assert [c.strip() for c in extraction.split("|")[2:-1]] == [
        *("106,300", "resnet152", "250", "100", "0.295", "1.7 MB")
    ]
    assert "ms a step" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--tables=table1"], "--tables has 'table1'; choose of table3, table4, table6."),
        (["--tables=table3", "--rows=bbn"], "--rows has 'bbn', and table3 has no such row."),
    ],
)
def test_what_there_is_not(monkeypatch, arguments, text):
    assert call(monkeypatch, *arguments) == f"ValueError: {text}"
