"""The longest operations of a trace, a device's own where it has any."""

import gzip
import json

from experiments.tracing import longest, trace_stages


def named(pid, name):
    return {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}


def event(pid, name, duration):
    return {"ph": "X", "pid": pid, "name": name, "dur": duration}


def test_the_longest_operations(tmp_path):
    host = [named(1, "/host:CPU"), event(1, "run", 9000.0), event(1, "$train.py:1 epoch", 1e6)]
    device = [named(2, "/device:GPU:0"), event(2, "conv", 3000.0), event(2, "add", 500.0)]
    device += [event(2, "conv", 4000.0), {"ph": "M", "pid": 2, "name": "thread_name"}]
    for events, expected in (
        (host, [["run", "9.0", "1"]]),
        (host + device, [["conv", "7.0", "2"], ["add", "0.5", "1"]]),
    ):
        path = tmp_path / "trace.json.gz"
        with gzip.open(path, "wt") as file:
            json.dump({"traceEvents": events}, file)
        lines = longest(path).splitlines()[2:]
        cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
        assert cells == expected


def test_each_stage_is_traced(small_config, tmp_path, capsys):
    trace_stages(small_config("otrw_global"), tmp_path)
    out = capsys.readouterr().out
    for stage in ("stage1", "stage2"):
        assert f"{stage} on cpu: " in out
        assert len(list((tmp_path / stage).glob("**/perfetto_trace.json.gz"))) == 1
    assert out.count("| operation") == 2
