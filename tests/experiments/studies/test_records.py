"""Records keep each config once, and read what was written with whole configs."""

import json

import pytest

from experiments.studies.records import CONFIGS, append, key_of, read


def record(seed, epochs=2, **more):
    config = {"recipe": "ce", "stage1.epochs": epochs, "seed": seed, "subset_seed": seed}
    return {"row": "ce", "seed": seed, "config": config} | more


def test_configs_that_are_alike_but_for_the_seed_are_kept_once(tmp_path):
    path = tmp_path / "table1.jsonl"
    records = [record(0), record(1), record(0, epochs=3), record(5)]
    for one in records:
        append(path, one)
    append(tmp_path / "table2.jsonl", record(7))
    assert read(path) == records and read(tmp_path / "table2.jsonl") == [record(7)]
    lines = [json.loads(line) for line in (tmp_path / CONFIGS).read_text().splitlines()]
    assert [line["key"] for line in lines] == [key_of(one["config"]) for one in records[1:3]]
    assert "stage1.epochs" not in path.read_text()


def test_seeds_of_the_config_that_are_not_the_records_stay(tmp_path):
    path = tmp_path / "controls.jsonl"
    several = record(0) | {"seeds": [0, 1]}
    del several["seed"]
    other = record(3) | {"config": record(3)["config"] | {"subset_seed": 4}}
    none = {"seed": 2, "config": {"recipe": "ce"}}
    for one in (several, other, none):
        append(path, one)
    assert read(path) == [several, other, none]


def test_a_record_with_its_whole_config_is_read_beside_new_ones(tmp_path):
    path = tmp_path / "table1.jsonl"
    path.write_text(json.dumps(record(0)) + "\n")
    append(path, record(1))
    append(path, {"row": "without a config"})
    assert read(path) == [record(0), record(1), {"row": "without a config"}]


def test_a_config_that_is_gone_is_told(tmp_path):
    path = tmp_path / "table1.jsonl"
    append(path, record(0))
    append(path, record(1, epochs=5))
    lines = (tmp_path / CONFIGS).read_text().splitlines()
    (tmp_path / CONFIGS).write_text(lines[0] + "\n")
    with pytest.raises(ValueError, match=r"table1\.jsonl, line 2: .*configs\.jsonl has no config"):
        read(path)
