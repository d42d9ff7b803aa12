"""Messages of errors are of one style: sentences, with a full stop at their end."""

import ast
import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def ends_of_messages(path):
    """The line of each `raise XError("...")`, and the last characters that it is certain to say."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
            continue
        message = node.exc.args[0]
        if isinstance(message, ast.JoinedStr):
            message = message.values[-1]
        if isinstance(message, ast.FormattedValue) and ast.unparse(message.value) != "error":
            yield node.lineno, ast.unparse(message)  # Another error's message has its own end.
        if isinstance(message, ast.Constant) and isinstance(message.value, str):
            yield node.lineno, message.value


@pytest.mark.parametrize("part", ["otrw_jax", "experiments"])
def test_messages_end_with_a_full_stop(part):
    found = []
    for path in sorted((REPOSITORY / part).rglob("*.py")):
        found += [
            f"{path.relative_to(REPOSITORY)}:{line} {text!r}"
            for line, text in ends_of_messages(path)
            if not text.endswith((".", "?"))
        ]
    assert found == []
