"""Lists of images: text and JSON, and what is no list."""

import json

import pytest

from otrw_jax.data.builders.manual import SourceError
from otrw_jax.data.builders.published_lists import read_list
from tests.data.builders.long_tailed_files import write_json


def test_a_line_is_a_path_and_a_class(tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes("\ufefftrain/a b/1.jpg 12\r\n\nval/кот.jpg  0\n".encode())
    assert read_list(file) == ([("train/a b/1.jpg", 12), ("val/кот.jpg", 0)], {})


@pytest.mark.parametrize("path", [" a/1.jpg", "\ta/1.jpg", "a/1\u2028.jpg", "a/\x0b1.jpg"])
def test_a_path_is_kept_as_it_is_written(tmp_path, path):
    (tmp_path / "list.txt").write_text(f"{path} 3 \nb.jpg 0\n", encoding="utf-8")
    assert read_list(tmp_path / "list.txt") == ([(path, 3), ("b.jpg", 0)], {})


def test_annotations_are_in_their_order(tmp_path):
    rows = [("b/1.jpg", 1), ("a/2.jpg", 0)]
    write_json(tmp_path / "list.json", rows, ("cat", "dog"))
    assert read_list(tmp_path / "list.json") == (rows, {0: "cat", 1: "dog"})


@pytest.mark.parametrize(
    "content, text",
    [
        (b"a.jpg 0\nb.jpg\n", "line 2: 'b.jpg' is no path followed by a blank and the number"),
        (b"a.jpg -1\n", "line 1: 'a.jpg -1' is no path followed by"),
        (b"  3\n", "line 1: '  3' is no path followed by"),
        (b"a.jpg 1.0\n", "line 1: 'a.jpg 1.0' is no path followed by"),
        (b"a.jpg 0\nb.jpg 1\na.jpg 1\n", "line 3: a.jpg is listed in line 1 already; list each"),
        (b"\xff.jpg 0\n", "is no text in UTF-8: "),
    ],
)
def test_what_is_no_list(tmp_path, content, text):
    file = tmp_path / "list.txt"
    file.write_bytes(content)
    with pytest.raises(SourceError) as raised:
        read_list(file)
    assert str(raised.value).startswith(str(file)) and text in str(raised.value)
    assert str(raised.value).endswith(".")


def _cut(content):
    return json.dumps(content)[:-9]


def _without(part):
    return lambda content: json.dumps({k: v for k, v in content.items() if k != part})


def _with(part, entry):
    return lambda content: json.dumps(content | {part: [*content[part], entry]})


@pytest.mark.parametrize(
    "change, text",
    [
        (_cut, "is no JSON, or cut off: "),
        (lambda content: "[]", "has no list 'categories'; give annotations with images"),
        (_without("annotations"), "has no list 'annotations'; give annotations with images"),
        (_with("images", {"id": 7}), "entry 2 of 'images' lacks id or file_name; mend it."),
        (_with("images", {"id": 7, "file_name": 3}), "entry 2 of 'images' lacks id or file_name"),
        (_with("images", {"id": [7], "file_name": "x"}), "id of entry 2 of 'images' is no number"),
        (_with("images", {"id": 100, "file_name": "x"}), "two entries of 'images' have the id 100"),
        (_with("images", {"id": 7, "file_name": "b/1.jpg"}), "b/1.jpg is listed under two ids; "),
        (_with("categories", {"id": 0, "name": "eel"}), "entries of 'categories' have the id 0"),
        (
            _with("annotations", {"image_id": 7, "category_id": 0}),
            "the annotation of image 7 has category 0; each must be the only one of an image that",
        ),
        (
            _with("annotations", {"image_id": 100, "category_id": 0}),
            "the annotation of image 100 has category 0; each must be the only one",
        ),
        (
            lambda content: json.dumps(content).replace('"category_id": 1', '"category_id": "x"'),
            "the annotation of image 100 has category 'x'; each must be",
        ),
    ],
)
def test_what_are_no_annotations(tmp_path, change, text):
    file = tmp_path / "list.json"
    write_json(file, [("b/1.jpg", 1), ("a/2.jpg", 0)], ("cat", "dog"))
    file.write_text(change(json.loads(file.read_text())))
    with pytest.raises(SourceError) as raised:
        read_list(file)
    assert str(raised.value).startswith(str(file)) and text in str(raised.value)
    assert str(raised.value).endswith(".")
