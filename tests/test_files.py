import json
import pathlib
import signal
import subprocess
import sys

import pytest

from otrw_jax.files import (
    append_line,
    read_json,
    uninterrupted,
    write_json,
    write_text,
    writing,
)
from tests.full_disk import full_after


def folders(directory):
    return sorted(path.name for path in directory.iterdir())


def test_json_comes_back(tmp_path):
    value = {"a": [1, 2.5, None], "b": {"c": "d"}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert read_json(str(tmp_path / "x.json")) == value


def test_text_is_in_utf_8_whatever_the_system_takes():
    code = """
import otrw_jax.files, sys, tempfile, pathlib
path = pathlib.Path(tempfile.mkdtemp(), "x.json")
otrw_jax.files.write_text(path, '"\\u03b5"')
assert path.read_bytes() == b'"\\xce\\xb5"' and otrw_jax.files.read_json(path) == "\\u03b5"
"""
    strict = ["-X", "warn_default_encoding", "-W", "error::EncodingWarning"]
    subprocess.run([sys.executable, *strict, "-c", code], check=True)


def test_a_json_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert read_json(path) == {"old": 1}

    def half(self, text, encoding):
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "write_text", half)
        with pytest.raises(OSError, match=r"x\.json cannot be written \(No space left on device\)"):
            write_json(path, {"new": 2})
    assert folders(tmp_path) == ["x.json"]
    assert read_json(path) == {"old": 1}
    write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"new": 2}
    assert folders(tmp_path) == ["x.json"]


@pytest.mark.parametrize("content", [b"", b'{"seed": ', b'{"s": \xff}'])
def test_a_damaged_json_file_is_named(content, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.json is damaged: .* restore it, or begin anew"):
        read_json(tmp_path / "x.json")


def test_an_error_of_the_file_system_names_the_file_and_what_to_do():
    with pytest.raises(PermissionError) as caught, writing("here/x"):
        raise PermissionError(13, "Permission denied", "other")
    assert str(caught.value) == (
        "here/x cannot be written (Permission denied); what was saved is intact: make room, or "
        "allow writing there, then run the same command again."
    )


def test_ctrl_c_is_held_back():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append(1)
    assert done == [1]
    with pytest.raises(KeyboardInterrupt):  # It works as before.
        signal.raise_signal(signal.SIGINT)


def test_a_line_is_added_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.jsonl"
    append_line(path, "first")
    append_line(path, "second")
    with (
        full_after(20),
        pytest.raises(OSError, match=r"x\.jsonl cannot be written \(.*\); what was"),
    ):
        append_line(path, "the third, which is longer")
    assert path.read_text() == "first\nsecond\n"
    append_line(path, "third")
    assert path.read_text() == "first\nsecond\nthird\n"


def test_a_text_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "folder" / "x.md"
    write_text(path, "old")
    with full_after(20), pytest.raises(OSError, match=r"x\.md cannot be written \(.*make room"):
        write_text(path, "new" * 20)
    assert path.read_text() == "old"
    assert folders(path.parent) == ["x.md"]
