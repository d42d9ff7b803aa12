"""The start of scripts, and their first and second runs, beside those of another checkout."""

import pathlib
import subprocess
import tempfile

from experiments.benchmarks.scripts import start
from experiments.benchmarks.scripts.start import REPOSITORY, NoSuchFlagError, Spent
from experiments.benchmarks.timing import Effort, median_ratio
from experiments.documents.markdown import number, table

PARTS = ("otrw_jax/__init__.py", "experiments/train.py")
"""Files that every checkout has."""
COLUMNS = {
    "other_processor": "other: processor, s",
    "processor": "here: processor, s",
    "other_seconds": "other: by the clock, s",
    "seconds": "here: by the clock, s",
    "ratio": "other / here",
}
"""Fields of a record that are shown, and what the table calls them."""


def checkout(folder: str) -> pathlib.Path:
    """The folder of another checkout.

    Raises:
        ValueError: there is none.
    """
    found = pathlib.Path(folder).resolve()
    for part in PARTS:
        if not (found / part).is_file():
            raise ValueError(
                f"--beside={folder} is no checkout of this project, for it has no {part}; name "
                "one, such as `git worktree add ../earlier COMMIT` makes."
            )
    return found


def run(effort: Effort, other: pathlib.Path) -> list[dict]:
    """One record for each command; the checkouts take turns. What trains is measured once.

    Args:
        effort: how often the others are measured.
        other: the other checkout.
    """
    commits = {"commit": commit_of(REPOSITORY), "other_commit": commit_of(other)}
    records = []
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        theirs = _cases(there)
        for name, case in _cases(here).items():
            turns = start.repeats(effort) if name in start.commands() else 1
            spent = [
                (start.spent_by(*case, REPOSITORY), _spent_there(*theirs[name], other))
                for _ in range(turns)
            ]
            records.append({"section": "beside", "name": name, **commits, **_times(spent)})
    return records


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    here, other = records[0]["commit"], records[0]["other_commit"]
    rows = [
        [r["name"], *("" if r[name] is None else number(r[name]) for name in COLUMNS)]
        for r in records
    ]
    return "\n\n".join(
        [
            "### The start of a script, beside another checkout",
            f"*Here* is {here}, *other* {other}; the same commands, in turns. {start.PROCESSES} "
            f"{start.RUNS}; *resumed* goes on with the second of these for one more epoch, by "
            "`--extend`. The demo is that of `make demo` on one seed, twice, each with fresh run "
            "directories. A checkout that keeps no programs compiles them each time; a cell is "
            "empty where it has no such command. The ratio is by the clock.",
            table(["command", *COLUMNS.values()], rows),
        ]
    )


def commit_of(folder: pathlib.Path) -> str:
    """A checkout's commit, `-dirty` behind it where files were changed since; if Git knows it."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return "of no known commit"
    return f"commit {done.stdout.strip()}" if done.returncode == 0 else "of no known commit"


def _cases(folder: str) -> dict[str, tuple[tuple[str, ...], dict[str, str | None]]]:
    """Arguments of each command and changes of its environment; run directories in the folder."""
    trained, plain = start.runs(folder), start.commands()
    trained |= _later(folder, trained["a run, programs kept"])
    apart = start.apart(folder)
    return {name: (arguments, {}) for name, arguments in plain.items()} | {
        name: (arguments, apart) for name, arguments in trained.items()
    }


def _later(folder: str, second: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Commands that follow on the runs: the second of them resumed, and demos."""
    resumed = {"a run, resumed, programs kept": (*second, start.ONE_MORE, "--extend")}
    return resumed | {
        f"the demo, programs {which}": (
            *("-m", "experiments.demo", "--seeds=0"),
            f"--workdir={folder}/{which.replace(' ', '_')}",
        )
        for which in ("not yet kept", "kept")
    }


def _spent_there(arguments: tuple[str, ...], changes: dict, other: pathlib.Path) -> Spent | None:
    """What a command takes in the other checkout; None where it has no such script or flag."""
    kind, script, *_ = arguments
    if kind == "-m" and not (other / script.replace(".", "/")).with_suffix(".py").is_file():
        return None
    try:
        return start.spent_by(arguments, changes, other)
    except NoSuchFlagError:
        return None


def _times(spent: list[tuple[Spent, Spent | None]]) -> dict:
    """Medians of both checkouts' times, and of the ratios of neighbouring ones."""
    ours = [here for here, _ in spent]
    theirs = [there for _, there in spent if there is not None]
    found = start.median(ours)
    times = {"processor": found.processor, "seconds": found.clock}
    if not theirs:
        return times | {"other_processor": None, "other_seconds": None, "ratio": None}
    other = start.median(theirs)
    ratio = median_ratio([x.clock for x in theirs], [x.clock for x in ours])
    return times | {
        "other_processor": other.processor,
        "other_seconds": other.clock,
        "ratio": ratio,
    }
