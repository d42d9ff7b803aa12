"""Of a document a part is rewritten, and the rest stays."""

import pytest

from experiments.documents.markdown import rewrite

BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"


def test_rewriting_keeps_the_rest_and_is_idempotent(tmp_path):
    path = tmp_path / "docs" / "results.md"
    rewrite(path, "first", "benchmark")
    assert path.read_text() == f"# Results\n\n{BEGIN}\nfirst\n{END}\n"
    path.write_text(f"above\n\n{path.read_text()}\nbelow\n")
    rewrite(path, "second", "benchmark")
    once = path.read_text()
    rewrite(path, "second", "benchmark")
    assert path.read_text() == once
    assert once.startswith("above\n\n# Results") and once.endswith("\nbelow\n")
    assert "second" in once and "first" not in once


def test_a_document_without_markers_gets_them_at_its_end(tmp_path):
    path = tmp_path / "results.md"
    path.write_text("# Results\n\nText.\n")
    rewrite(path, "new", "benchmark")
    assert path.read_text() == f"# Results\n\nText.\n\n{BEGIN}\nnew\n{END}\n"


@pytest.mark.parametrize("document", [BEGIN, END + BEGIN, 2 * (BEGIN + END)])
def test_broken_markers_are_refused(tmp_path, document):
    path = tmp_path / "results.md"
    path.write_text(document)
    with pytest.raises(ValueError, match="once each"):
        rewrite(path, "new", "benchmark")
    assert path.read_text() == document
