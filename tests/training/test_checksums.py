import pytest

from otrw_jax.training.checksums import checksums, damage


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"12345", None),
        (b"", "in/a is empty"),
        (b"123", "in/a is cut off at 3 of 5 bytes"),
        (b"12346", "in/a has another content than was written"),
        (b"123456", "in/a has another content than was written"),
        (None, "in/a is missing"),
    ],
)
def test_damage_is_told_by_the_file(folder, content, found):
    known = checksums(folder)
    assert list(known) == ["b", "in/a"]
    (folder / "later").write_text("no matter")
    (folder / "in" / "a").unlink()
    if content is not None:
        (folder / "in" / "a").write_bytes(content)
    assert damage(folder, known) == found


def test_a_folder_in_place_of_a_file_is_damage(folder):
    known = checksums(folder)
    (folder / "b").unlink()
    (folder / "b").mkdir()
    assert damage(folder, known) in (
        "b has another content than was written",
        "b cannot be read (Is a directory)",
    )
