"""Kills runs at random moments and lets them go on: all must end bit for bit like whole ones.

python -m tests.soak --workdir=runs/soak
python -m tests.soak --workdir=runs/soak --kills=2 --only=otrw_paper,seeds

Each case is trained once without a kill, and then in fresh directories, killed again and again,
until it has had its kills: anywhere, after an epoch, or in the middle of a save.
"""

import collections
import concurrent.futures
import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from experiments.cli import WORKDIR, run_app
from experiments.runs.restoring import restore
from otrw_jax.files import read_json

KILLS = flags.DEFINE_integer("kills", 0, "Of each case; 0 takes its own number.", lower_bound=0)
ONLY = flags.DEFINE_list("only", [], "Names of cases; all by default.")
AT_ONCE = flags.DEFINE_integer("at_once", 2, "Cases at the same time.", lower_bound=1)
SOAK_SEED = flags.DEFINE_integer("soak_seed", 0, "Of the moments.")

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
STAGE1_EPOCHS, STAGE2_EPOCHS = 8, 6
MOMENTS = ("anywhere", "after an epoch", "during a save")
KEPT_IN = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
"""The folder of compiled programs, where one is given."""
LONGEST = 300.0
"""Seconds after which a process is taken for hung."""
AT_MOST = 3
"""Kills of one run, which then ends."""


class Case(NamedTuple):
    """What is killed: a recipe on digits, in one process or more, for one seed or more together."""

    recipe: str
    kills: int = 5
    processes: int = 1
    seeds: tuple[int, ...] = ()


RECIPES = (
    *("ce", "ldam_drw", "progressive_sampling", "bbn", "mwn", "balanced_meta_softmax", "crt"),
    *("otrw_paper", "otrw_released", "otrw_global"),
)
CASES = {recipe: Case(recipe) for recipe in RECIPES} | {
    "seeds": Case("otrw_global", kills=6, seeds=(0, 1, 2)),
    "processes": Case("otrw_global", kills=6, processes=2),
}


class SoakError(RuntimeError):
    """A run did not go on, or ended otherwise than a whole one."""


def main(argv: list[str]) -> None:
    """Soaks the cases and says how many kills there were."""
    del argv
    names = ONLY.value or list(CASES)
    folder = pathlib.Path(WORKDIR.value)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE.value) as pool:
        jobs = {
            name: pool.submit(soak, name, folder, KILLS.value or CASES[name].kills, SOAK_SEED.value)
            for name in names
        }
        kills = sum((job.result() for job in jobs.values()), collections.Counter())
    how = ", ".join(f"{kills[moment]} {moment}" for moment in MOMENTS)
    print(f"{kills.total()} kills ({how}) of {len(names)} cases: all runs went on bit for bit.")


def soak(
    name: str, folder: pathlib.Path, kills: int, seed: int, data_dir: str = ""
) -> collections.Counter:
    """Kills a case so many times.

    Args:
        name: of `CASES`.
        folder: gets the run directories, anew, and the folder of compiled programs, unless
            JAX_COMPILATION_CACHE_DIR names another.
        kills: how many.
        seed: of the moments.
        data_dir: TFDS folder.

    Returns:
        How many kills came at which moments.

    Raises:
        SoakError: a run is not what it is without kills.
    """
    case, place, rng = CASES[name], folder / name, random.Random(f"{name} {seed}")
    shutil.rmtree(place, ignore_errors=True)
    begun = time.monotonic()
    finish(case, place / "whole", folder, data_dir)
    duration, done, runs = time.monotonic() - begun, collections.Counter(), 0
    while done.total() < kills:
        workdir, runs = place / f"run_{runs}", runs + 1
        for _ in range(min(AT_MOST, kills - done.total())):
            moment = rng.choice(MOMENTS)
            started = start(case, workdir, folder, data_dir)
            if not killed(started, workdir, moment, duration, rng):
                break
            done[moment] += 1
        finish(case, workdir, folder, data_dir)
        check(case, workdir, place / "whole")
    print(f"{name}: {done.total()} kills of {runs} runs, {dict(done)}, all equal.", flush=True)
    return done


def start(case: Case, workdir: pathlib.Path, folder: pathlib.Path, data_dir: str) -> list:
    """Starts the processes of a run; what they say goes to files beside it."""
    workdir.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "experiments.train", f"--workdir={workdir.absolute()}"),
        f"--config=experiments/configs/digits.py:recipe={case.recipe}",
        f"--config.stage1.epochs={STAGE1_EPOCHS}",
        f"--config.data.data_dir={data_dir}",
        *([f"--config.seeds={case.seeds}"] if case.seeds else []),
    ]
    if case.recipe in ("crt", "balanced_meta_softmax") or case.recipe.startswith("otrw"):
        command.append(f"--config.stage2.{case.recipe}.epochs={STAGE2_EPOCHS}")
    if case.processes > 1:
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            port = listener.getsockname()[1]
        command += [f"--coordinator=localhost:{port}", f"--num_processes={case.processes}"]
        command += ["--heartbeat_seconds=10"]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": KEPT_IN or str((folder / "compiled").absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    started = []
    for number in range(case.processes):
        own = [f"--process_id={number}"] if case.processes > 1 else []
        with workdir.with_suffix(f".log{number}").open("w") as log:
            options = {"cwd": REPOSITORY, "env": environment, "stdout": log, "stderr": log}
            started.append(subprocess.Popen([*command, *own], **options))
    return started


def killed(
    started: list, workdir: pathlib.Path, moment: str, duration: float, rng: random.Random
) -> bool:
    """Kills one of the processes at a moment; False where they had ended before it came."""
    before, limit = newest(workdir), time.monotonic() + LONGEST
    wanted, pause = before + rng.randrange(1, 5), rng.uniform(0, 0.15)
    if moment == "anywhere":
        wanted, pause = before, rng.uniform(0, duration)

    def come():
        with contextlib.suppress(FileNotFoundError):  # Folders go while they are listed.
            saves = moment != "during a save" or any(workdir.rglob("*.orbax-checkpoint-tmp*"))
            return saves and newest(workdir) >= wanted
        return False

    while not come():
        if any(process.poll() is not None for process in started):
            return ended(started, workdir)
        if time.monotonic() > limit:
            end(started)
            raise SoakError(f"{workdir} hangs; see {workdir.with_suffix('.log0')}.")
        time.sleep(0.001)
    if moment != "during a save":
        time.sleep(pause)
    victim = rng.choice(started)
    victim.send_signal(signal.SIGKILL)
    if victim.wait() != -signal.SIGKILL:
        return ended(started, workdir)
    for process in started:  # The others miss it, and end by themselves.
        process.wait(LONGEST)
    return True


def ended(started: list, workdir: pathlib.Path) -> bool:
    """False, after it is sure that the processes have ended well by themselves."""
    codes = [process.wait(LONGEST) for process in started]
    if any(codes):
        at = next(number for number, code in enumerate(codes) if code)
        said = workdir.with_suffix(f".log{at}").read_text()[-2000:]
        raise SoakError(f"{workdir} ended with {codes}: {said}")
    return False


def end(started: list) -> None:
    """Kills what is left."""
    for process in started:
        process.kill()
        process.wait()


def finish(case: Case, workdir: pathlib.Path, folder: pathlib.Path, data_dir: str) -> None:
    """Lets a run go on to its end."""
    started = start(case, workdir, folder, data_dir)
    try:
        ended(started, workdir)
    finally:
        end(started)


def newest(workdir: pathlib.Path) -> int:
    """The sum of the numbers of the newest checkpoints of a run, or of all its seeds."""
    folders = [workdir, *workdir.glob("seed_*")]
    names = [[path.name for path in one.glob("checkpoints/*")] for one in folders]
    return sum(max((int(n) for n in each if n.isdigit()), default=0) for each in names)


def check(case: Case, found: pathlib.Path, whole: pathlib.Path) -> None:
    """Asserts that a run has the results, the history and the bits of another.

    Raises:
        SoakError: it has not.
    """
    for folder in [f"seed_{seed}" for seed in case.seeds] or ["."]:
        runs = found / folder, whole / folder
        results = [read_json(run / "results.json") for run in runs]
        states = [jax.tree.leaves(restore(run).state) for run in runs]
        same = len(states[0]) == len(states[1]) and all(map(equal, *states))
        if results[0] != results[1] or not same:
            raise SoakError(f"{runs[0]} ended otherwise than {runs[1]}.")


def equal(a: jax.Array, b: jax.Array) -> bool:
    """Whether two arrays are the same bit for bit."""
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


if __name__ == "__main__":
    run_app(main, "workdir")
