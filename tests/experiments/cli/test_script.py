"""The border of the scripts: arguments, paths, help, interrupts."""

import gc
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import demo, evaluate, train
from experiments.cli import WORKDIR, run_app, sentence
from experiments.cli import script as cli
from experiments.configs import digits
from experiments.configs.user_paths import expand_paths

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

CONFIG = "--config=experiments/configs/digits.py"
REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script's main in this process; gives what it exits with, and what it prints."""
    monkeypatch.chdir(REPOSITORY)

    def call(main, *arguments, required=()):
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            monkeypatch.setattr(sys, "argv", ["script", *arguments])
            try:
                run_app(main, *required)
            except SystemExit as end:
                return end.code, capsys.readouterr()
            finally:
                flags.FLAGS.mark_as_parsed()

    return call


def test_a_script_seldom_searches_for_garbage_and_not_in_what_it_imports(run):
    begun = "import gc, sys; sys.argv = ['-m']; import experiments; print(gc.get_threshold())"
    said = subprocess.run(
        [sys.executable, "-c", begun], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert said.stdout == "(10000, 10, 10)\n"
    kept, before = [], gc.get_freeze_count()
    new = [[] for _ in range(1000)]  # Of those that a collection looks at.
    run(lambda argv: kept.append(gc.get_freeze_count()))
    assert kept[0] >= before + len(new)


@pytest.mark.parametrize("output", ["help", "a line", "many lines"])
def test_where_nobody_reads_on_a_script_ends_without_a_word(run, monkeypatch, output):
    """As under `| head`; what is buffered comes to the closed pipe at the end."""
    reader, writer = os.pipe()
    os.close(reader)

    def main(argv):
        print("line\n" * (100_000 if output == "many lines" else 1))

    with os.fdopen(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        code, said = run(main, *(["--help"] if output == "help" else []))
    assert (code, said.err) == (141, "")


@pytest.mark.parametrize("interrupt", ["alone", "behind another error"])
def test_an_interrupt_is_one_sentence_and_130(run, monkeypatch, interrupt):
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def main(argv):
        del argv
        try:
            raise KeyboardInterrupt
        finally:
            if interrupt != "alone":
                raise RuntimeError("Event loop is closed")

    code, said = run(main)
    assert code == 130
    assert said.err == "interrupted; the same command goes on from what is kept.\n"


def test_an_interrupt_while_a_script_starts(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.evaluate", f"--workdir={tmp_path}"],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.6)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said and "interrupted" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "/x"), "OSError: /x: no space left on device; mak"),
        (PermissionError(13, "Permission denied", "/x"), "PermissionError: /x: permission denied;"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: no such file or directory."),
        (ValueError("a\n  b"), "ValueError: a b."),
    ],
)
def test_an_error_is_one_sentence_with_its_file(error, said):
    assert said in sentence(error)
    assert sentence(error).endswith(".") and "\n" not in sentence(error)


def test_help_lists_a_scripts_flags_and_the_fields_of_a_config(run):
    code, said = run(train.main, "--help", f"{CONFIG}:recipe=focal")
    assert code == 0
    for line in ("  --workdir: ", "  stage1.epochs = 60  (a whole number of 1 or more)"):
        assert line in said.out
    assert "options.focal.gamma = 1.0  (0 or more)" in said.out
    assert "--markdown" not in said.out and "options.ldam" not in said.out
    code, said = run(demo.main, "--help")
    assert code == 0 and "  --seeds: " in said.out and "stage1.epochs" not in said.out


def test_paths_begin_at_the_users_home(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []
    run(lambda argv: seen.append(WORKDIR.value), "--workdir=~/x")
    assert seen == [str(tmp_path / "x")]
    config = digits.get_config()
    config.stage1_from, config.data.data_dir = "~/a", "~/b"
    expand_paths(config)
    assert (config.stage1_from, config.data.data_dir) == (f"{tmp_path}/a", f"{tmp_path}/b")
    code, _ = run(evaluate.main, "--workdir=~/none")
    assert code == f"FileNotFoundError: {tmp_path}/none holds no run; train first."
