"""Scripts of two made checkouts, started in turns; no times."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from experiments.benchmarks.scripts import beside, start
from experiments.benchmarks.timing import Effort

SCRIPT = """import os, sys
from otrw_jax import NAME
unknown = [flag for flag in sys.argv[1:] if flag not in ("--help", "--kept", *{flags})]
if unknown:
    sys.exit(f"Unknown command line flag '{{unknown[0]}}'.")
with open({log!r}, "a") as log:
    print(NAME, *sys.argv[1:], os.environ.get("XDG_CACHE_HOME", "-"), file=log)
"""


@pytest.fixture
def checkouts(tmp_path):
    """Two checkouts, `here` with a script and a flag more; and what their scripts note down."""
    log = tmp_path / "log"
    for name, known in (("here", ("--new", "--extend")), ("there", ())):
        for part in ("otrw_jax", "experiments"):
            (tmp_path / name / part).mkdir(parents=True)
            (tmp_path / name / part / "__init__.py").write_text(f"NAME = {name!r}\n")
        text = SCRIPT.format(flags=known, log=str(log))
        (tmp_path / name / "experiments" / "train.py").write_text(text)
    scripts = tmp_path / "here" / "experiments"
    shutil.copy(scripts / "train.py", scripts / "later.py")
    return tmp_path / "here", tmp_path / "there", log


@pytest.fixture
def records(checkouts, monkeypatch):
    here, there, _ = checkouts
    train = ("-m", "experiments.train")
    monkeypatch.setattr(beside, "REPOSITORY", here)
    commands = {"help": (*train, "--help"), "later": ("-m", "experiments.later", "--help")}
    monkeypatch.setattr(start, "commands", lambda: commands)
    runs = {"a run, programs kept": (*train, "--kept"), "new": (*train, "--new")}
    monkeypatch.setattr(start, "runs", lambda folder: runs)
    monkeypatch.setattr(beside, "_later", lambda folder, second: {})
    return beside.run(Effort(largest=False), beside.checkout(str(there)))


def test_both_run_their_own_code_in_turns(records, checkouts):
    lines = [line.split() for line in checkouts[2].read_text().splitlines()]
    assert [tuple(line[:2]) for line in lines] == [
        *(("here", "--help"), ("there", "--help")) * 2,
        *(("here", "--help"),) * 2,  # `later`, which the other has not.
        *(("here", "--kept"), ("there", "--kept"), ("here", "--new")),
    ]
    caches = [line[2] for line in lines]
    assert len(set(caches[-3:-1])) == 2 and caches[-1] == caches[-3] and "-" not in caches[-3:]


def test_what_the_other_has_not_is_an_empty_cell(records):
    assert json.loads(json.dumps(records)) == records
    assert {record["section"] for record in records} == {"beside"}
    found = {record["name"]: record for record in records}
    for name in ("help", "a run, programs kept"):
        assert all(found[name][column] > 0 for column in beside.COLUMNS)
    for name in ("later", "new"):
        assert found[name]["seconds"] > 0
        assert {found[name][c] for c in ("other_processor", "other_seconds", "ratio")} == {None}
    text = beside.markdown(records)
    (row,) = [line for line in text.splitlines() if line.startswith("| later")]
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert [bool(cell) for cell in cells] == [False, True, False, True, False]


def test_ratios_are_those_of_neighbours():
    ours = [start.Spent(1.0, clock) for clock in (2.0, 4.0, 1.0)]
    theirs = [start.Spent(3.0, clock) for clock in (8.0, 4.0, 2.0)]
    assert beside._times(list(zip(ours, theirs, strict=True))) == {
        **{"processor": 1.0, "seconds": 2.0, "other_processor": 3.0, "other_seconds": 4.0},
        "ratio": 2.0,
    }


def test_a_command_that_fails_otherwise_is_no_empty_cell(checkouts):
    (checkouts[1] / "experiments" / "train.py").write_text("1 / 0")
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1: .*ZeroDivisionError"):
        beside._spent_there(("-m", "experiments.train", "--help"), {}, checkouts[1])


@pytest.mark.skipif(not shutil.which("git"), reason="needs Git")
def test_the_commit_of_a_checkout(checkouts):
    here, there, _ = checkouts
    assert beside.commit_of(there) == "of no known commit"
    git = ["git", "-C", str(here), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *arguments], check=True)
    assert re.fullmatch("commit [0-9a-f]{7,}", beside.commit_of(here))
    (here / "experiments" / "train.py").write_text("")
    assert beside.commit_of(here).endswith("-dirty")


def test_no_checkout_ends_in_a_sentence(checkouts):
    there = checkouts[1]
    (there / "otrw_jax" / "__init__.py").unlink()
    with pytest.raises(ValueError, match=r"--beside=.*there is no checkout.*no otrw_jax/__init__"):
        beside.checkout(str(there))


IN_SMALL = """
import json, sys
from absl import flags
from experiments import benchmark
from experiments.benchmarks.scripts import beside
try:
    benchmark.other_checkout(sys.argv[1], ["step", "start"])
except ValueError as error:
    print(error)
assert benchmark.other_checkout(None, ["step"]) is None
records = json.loads(sys.argv[3])
beside.run = lambda effort, other: records
sys.argv = ["benchmark", "--only=start", f"--beside={sys.argv[1]}", f"--markdown={sys.argv[2]}"]
benchmark.main(flags.FLAGS(sys.argv))
"""


def test_the_document_keeps_its_other_section(records, checkouts, tmp_path):
    """In a process of its own, since scripts have flags of the same names."""
    document = tmp_path / "benchmark.md"
    document.write_text("# B\n\n<!-- benchmark:begin -->\nall else\n<!-- benchmark:end -->\n")
    arguments = [str(checkouts[1]), str(document), json.dumps(records)]
    done = subprocess.run(
        [sys.executable, "-c", IN_SMALL, *arguments], capture_output=True, text=True, check=True
    )
    assert "has a meaning for the start alone; add --only=start.\n" in done.stdout
    text = document.read_text()
    assert "<!-- benchmark:begin -->\nall else\n<!-- benchmark:end -->" in text
    assert text.index("<!-- beside:begin -->\n## Beside another checkout") > text.index("all else")
    assert beside.markdown(records) in text and beside.markdown(records) in done.stdout
