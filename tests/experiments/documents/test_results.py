"""The document of made records: two protocols, devices, imbalances, single seeds."""

import re

import pytest

from experiments.documents.results import document
from experiments.studies.records import append
from experiments.studies.rows import resolved, row_config
from experiments.studies.tables import TABLES

FACTORS = (200.0, 100.0, 50.0, 20.0)
GPU, CPU = "gpu: NVIDIA H100", "cpu: made, 2 cores"


def record(row, dataset, factor, protocol, seed, error, device=GPU, **more):
    config = row_config(TABLES["table1"].rows[row], dataset, factor, {}, protocol)
    result = {"epoch": 1, "error": error, "balanced_accuracy": 100 - error}
    about = {"table": "table1", "row": row, "protocol": protocol, "changes": {}, "recipe": row}
    about |= {"dataset": dataset, "imbalance_factor": factor, "seed": seed, "device": device}
    results = dict.fromkeys(("last", "best_held_out", "best_test"), result)
    seconds = {"seconds_of": {"stage1": 60.0}, "seconds": 60.0, "seeds_together": 1}
    of_run = {"versions": {"jax": "0"}, "results": results, "config": resolved(config, seed)}
    return about | of_run | seconds | more


@pytest.fixture
def made(tmp_path):
    """From records to the lines of the document, cells without blanks around them."""

    def make(records):
        for one in records:
            append(tmp_path / "table1.jsonl", one)
        lines = document(tmp_path).splitlines()
        return [[cell.strip() for cell in re.split(r"\s*\|\s*", line)[1:-1]] for line in lines]

    return make


def test_table_1_has_every_imbalance_in_both_protocols(made):
    errors, records = {}, []
    for at, dataset in enumerate(("cifar10", "cifar100")):
        for protocol, shift in (("paper", 20.0), ("short", 30.0)):
            for factor in FACTORS:
                suffix = ", short" if protocol == "short" else ""
                error = shift + 10 * at + factor / 100
                errors[f"{dataset}, {factor:g}{suffix}"] = f"{error:.2f}"
                records.append(record("ce", dataset, factor, protocol, 0, error))
    records.append(record("ce", "cifar10", 100.0, "short", 1, 33.0))
    errors["cifar10, 100, short"] = "32.00 ± 1.41"
    lines = made(records)
    header = next(line for line in lines if "cifar10, 200" in line)
    row = lines[lines.index(header) + 2]
    found = dict(zip(header, row, strict=True))
    assert found.pop("row") == "`ce`"
    assert {name: cell.split(" (")[0] for name, cell in found.items()} == errors
    assert found["cifar10, 200"] == "22.00 (34.13)"


def test_seconds_of_processors_and_accelerators_are_told_apart(made):
    short = "cifar10", 100.0, "short"
    head = {"seconds": 70.0, "seconds_of": {"stage1": 60.0, "stage2": 10.0}}
    records = [
        record("ce", *short, 0, 30.0),
        record("ce", *short, 1, 30.0, CPU, seconds=9000.0),
        record("cb", *short, 0, 20.0, CPU, **head, device_of={"stage1": GPU}),
        record("crt", *short, 0, 20.0, GPU, **head),
    ]
    lines = made(records)
    seconds = {line[0].partition(":")[0]: line[-1] for line in lines if len(line) == 14}
    del seconds["row"]
    assert {k: v for k, v in seconds.items() if k.startswith("`")} == {
        "`ce`": "cpu 9000, gpu 60",
        "`cb`": "10",
        "`crt`": "70",
    }


def test_second_stages_stand_in_the_order_of_the_table(made):
    rows = ["otrw_global", "cb", "continued"]
    records = [
        record(row, "cifar10", 100.0, protocol, 0, 20.0)
        for row in rows
        for protocol in ("short", "paper")
    ]
    lines = [line[:3] for line in made(records) if line[1:2] == ["`continued`"]]
    expected = [
        ("cb", "paper"),
        ("cb", "short"),
        ("otrw_global", "paper"),
        ("otrw_global", "short"),
    ]
    assert lines == [[f"`{row}`", "`continued`", protocol] for row, protocol in expected]
