import pathlib

import numpy as np
import pytest

from otrw_jax.data.builders.image_folder import load_image_folder
from otrw_jax.data.builders.image_lists import Listed, list_images
from otrw_jax.data.builders.manual import SourceError
from tests.data.builders.image_files import make_folder

ROWS = [
    ("test/cat/0.jpg", "Katze", "test"),
    ("train/cat/0.jpg", "Katze", "train"),
    ("train/dog/1.jpg", "Hund, groß", "train"),
    ("test/dog/0.jpg", "Hund, groß", "test"),
    ("train/dog/0.jpg", "Hund, groß", "val"),
]


def write_csv(path, rows, columns="path,label,split"):
    lines = [columns, *(",".join(f'"{cell}"' for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def write_parquet(path, rows, columns="path,label,split"):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    named = zip(columns.split(","), zip(*rows, strict=True), strict=True)
    parquet.write_table(pyarrow.table({name: list(cells) for name, cells in named}), path)
    return path


@pytest.mark.parametrize("write, name", [(write_csv, "list.csv"), (write_parquet, "List.PARQUET")])
def test_a_table_gives_classes_parts_and_the_order(tmp_path, write, name):
    root = make_folder(tmp_path / "images")
    found = load_image_folder(write(root / name, ROWS), tmp_path / "data")
    assert found.class_names == ("Hund, groß", "Katze")
    assert list(found.paths) == ["train", "validation", "test"]
    assert [str(p.relative_to(root)) for p in found.paths["train"]] == [ROWS[1][0], ROWS[2][0]]
    assert found.labels["test"].tolist() == [1, 0]


def test_labels_that_are_numbers_and_absolute_paths(tmp_path):
    root = make_folder(tmp_path / "images", count=4)
    rows = [(root / f"train/cat/{i}.jpg", 10 - i % 2) for i in range(4)]
    found = load_image_folder(
        write_parquet(tmp_path / "a.parquet", [(str(p), n) for p, n in rows], "path,label"),
        tmp_path / "data",
        test_share=0.5,
    )
    assert found.class_names == ("9", "10")
    assert np.bincount(found.labels["train"]).tolist() == [1, 1]


def test_a_row_of_a_file_that_is_missing_counts_as_a_fault(tmp_path):
    root = make_folder(tmp_path / "images")
    path = write_csv(root / "list.csv", [*ROWS, ("train/cat/99.jpg", "Katze", "train")])
    with pytest.raises(SourceError, match=r"1 of 6 files cannot be used .*99.jpg' is missing"):
        load_image_folder(path, tmp_path / "data")


def test_other_columns_are_left_aside_and_told(tmp_path):
    rows = [("a.jpg", "x", "2019"), ("b.jpg", "y", "2020")]
    listing = list_images(write_csv(tmp_path / "list.csv", rows, "path,label,year"))
    assert listing.images == (Listed("a.jpg", "x", "train"), Listed("b.jpg", "y", "train"))
    assert listing.notes == ("list.csv: the columns year are left aside.",)


@pytest.mark.parametrize(
    "content, text",
    [
        ("path;label\na.jpg;x\n", "{path} has the columns path;label; give path and label"),
        ("", "{path} has the columns ; give path and label"),
        ("path,label,path\na.jpg,x,b.jpg\n", "{path} has two columns path; rename or delete one"),
        ("path,label\n", "{path} lists no image"),
        ("path,label\n,x\n", "{path}, row 2: there is no path"),
        ("path,label\na.jpg,\n", "{path}, row 2: there is no label"),
        ("path,label\na.jpg,x,y\n", "{path}, row 2: it has more or fewer cells"),
        ("path,label,split\na.jpg,x\n", "{path}, row 2: it has more or fewer cells"),
        ("path,label,split\na.jpg,x,dev\n", "{path}, row 2: split is 'dev'; it must be one of tr"),
        ("path,label\na.jpg,x\nb.jpg,y\n./a.jpg,y\n", "{path}, row 4: a.jpg is listed in row 2 al"),
        ('path,label\n"a.jpg,x\n', "{path} is no CSV file in UTF-8"),
        (b"path,label\n\xff.jpg,x\n", "{path} is no CSV file in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_says_where(tmp_path, content, text):
    path = tmp_path / "list.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError) as raised:
        list_images(path)
    assert str(raised.value).startswith(text.format(path=path)) and str(raised.value)[-1] == "."


def _refusing(self, *args, **options):
    raise PermissionError(13, "Permission denied", str(self))


@pytest.mark.parametrize("of, place", [("open", "list.csv"), ("iterdir", "images")])
def test_what_may_not_be_read(tmp_path, monkeypatch, of, place):
    """Root may read all, hence by name."""
    write_csv(make_folder(tmp_path / "images").parent / "list.csv", ROWS)
    monkeypatch.setattr(pathlib.Path, of, _refusing)
    with pytest.raises(SourceError, match=rf"{place} cannot be read \(Permission denied\); allow"):
        list_images(tmp_path / place)


def test_files_of_other_kinds_are_no_tables(tmp_path):
    (tmp_path / "list.txt").write_text("path,label\n")
    with pytest.raises(SourceError, match="neither a folder nor a table"):
        list_images(tmp_path / "list.txt")
    pytest.importorskip("pyarrow")
    (tmp_path / "list.parquet").write_text("path,label\n")
    with pytest.raises(SourceError, match="cut off, or no Parquet file"):
        list_images(tmp_path / "list.parquet")
