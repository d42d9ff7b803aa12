"""Every file that is written on a full disk: named in one sentence, and as it was before."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import report
from experiments.cli import sentence
from experiments.documents.markdown import rewrite
from experiments.pictures.style import save
from experiments.runs.display import Display
from experiments.runs.journal import Reporter
from experiments.runs.learned_weights import write_weights
from experiments.runs.network_files import read_about, write_network
from experiments.studies import parcels
from experiments.studies.records import append, read
from otrw_jax.data.sources import save_arrays
from otrw_jax.files import write_json
from tests.full_disk import full_after

ROOM = 300
LONG = "x" * 2 * ROOM
ABOUT = {"config": {}}


def picture(path, size):
    figure = Figure((size, size))
    figure.subplots()
    save(figure, path)


def weights(path, count):
    write_weights(path, np.arange(count), np.zeros(count, int), np.ones(count))


WRITERS = {
    "x.json": (lambda path: write_json(path, [1]), lambda path: write_json(path, [LONG])),
    "x.jsonl": (lambda path: append(path, {"a": 1}), lambda path: append(path, {"a": LONG})),
    "x.md": (lambda path: rewrite(path, "old", "a"), lambda path: rewrite(path, LONG, "a")),
    "x.png": (lambda path: path.write_bytes(b"old"), lambda path: picture(path, 2)),
    "x.csv": (lambda path: weights(path, 2), lambda path: weights(path, 100)),
    "x.npz": (
        lambda path: path.write_bytes(b"old"),
        lambda path: save_arrays(path, {"a": np.zeros(ROOM)}),
    ),
    "x.safetensors": (
        lambda path: write_network(path, {"a": np.zeros(1)}, ABOUT),
        lambda path: write_network(path, {"a": np.zeros(ROOM)}, ABOUT),
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_on_a_full_disk(name, tmp_path, monkeypatch):
    path, (before, after) = tmp_path / name, WRITERS[name]
    before(path)
    was = path.read_bytes()
    with full_after(ROOM), pytest.raises(OSError, match=re.escape(f"{path} cannot be w")) as error:
        after(path)
    assert sentence(error.value).endswith(
        "make room, or allow writing there, then run the same command again."
    )
    assert path.read_bytes() == was
    assert [one.name for one in tmp_path.iterdir()] == [name]
    after(path)
    assert path.read_bytes() != was


def test_what_was_recorded_before_is_read(tmp_path):
    path, config = tmp_path / "x.jsonl", {"a": 1, "seed": 0, "subset_seed": 0}
    append(path, {"seed": 0, "config": config})
    for record in ({"seed": 1, "long": LONG}, {"seed": 0, "config": {**config, "b": LONG}}):
        with full_after(ROOM), pytest.raises(OSError, match=r"\.jsonl cannot be written"):
            append(path, record)
    assert read(path) == [{"seed": 0, "config": config}]


def test_the_epochs_of_a_run_are_whole_lines(tmp_path):
    display = Display("run", "waiting")
    display.begin(0, 3)
    record = {"number": 1, "stage": "stage1", "loss": 1.0, "train_error": 50.0}
    reporter = Reporter(tmp_path, "run", [], display)
    reporter.epoch(record)
    with full_after(100), pytest.raises(OSError, match=r"metrics\.jsonl cannot be written"):
        reporter.epoch(record | {"number": 2})
    reporter.close()
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert lines == json.dumps(record) + "\n"
    with full_after(100), pytest.raises(OSError, match=r"metrics\.jsonl cannot be written"):
        Reporter(tmp_path, "run", [record] * 2, display)
    assert (tmp_path / "metrics.jsonl").read_text() == lines
    display.close()


def test_a_document_is_not_cut_off(tmp_path, monkeypatch):
    out = tmp_path / "results.md"
    out.write_text("old")
    monkeypatch.setattr(report, "OUT", SimpleNamespace(value=str(out)))
    monkeypatch.setattr(report, "RECORDS", SimpleNamespace(value=str(tmp_path)))
    monkeypatch.setattr(report, "document", lambda folder: LONG)
    with full_after(ROOM), pytest.raises(OSError, match=r"results\.md cannot be written"):
        report.main([])
    assert out.read_text() == "old"


def test_a_network_file_that_is_there_is_kept(tmp_path):
    path = tmp_path / "x.safetensors"
    write_network(path, {"a": np.zeros(1)}, ABOUT | {"about": 1})
    with full_after(ROOM), pytest.raises(OSError, match="cannot be written"):
        write_network(path, {"a": np.zeros(ROOM)}, ABOUT | {"about": 2})
    assert read_about(path) == ABOUT | {"about": 1}


def test_what_is_half_unpacked_is_no_data_set(tmp_path):
    packed, root = tmp_path / "packed", tmp_path / "tfds"
    packed.mkdir()
    images = np.zeros((2, 32, 32, 3), np.uint8)
    about = {"home": "cifar10/1", "files": {"a.txt": "a"}, "fingerprints": {"0": "a"}}
    arrays = {"part": np.array("test"), "ids": np.arange(2), "strip": parcels._strip(images)}
    arrays |= {"train_labels": np.arange(2), "test_labels": np.arange(2)}
    save_arrays(packed / "cifar10_0.npz", arrays | {"about": np.array(json.dumps(about))})
    with full_after(ROOM), pytest.raises(OSError, match="cannot be written"):
        list(parcels.unpack(packed, root))
    assert not (root / "cifar10").exists()
    assert list(parcels.unpack(packed, root)) == ["cifar10"]
    assert (root / "cifar10" / "1" / "a.txt").read_text() == "a"
    assert [one.name for one in root.iterdir()] == ["cifar10"]
