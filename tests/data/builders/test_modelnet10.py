import re
import sys
import zipfile

import numpy as np
import pytest

from otrw_jax.data import sources
from otrw_jax.data.builders.clouds import CLASSES, read_meshes, read_parquet, read_text, unit_sphere
from otrw_jax.data.builders.manual import SourceError
from otrw_jax.data.builders.modelnet10 import ModelNet10
from otrw_jax.data.sources import DatasetNotFound, load_dataset

PARTS = {"train": 2, "test": 1}  # Objects of each class.
SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
SQUARE_OFF = f"OFF\n4 1 0\n{SQUARE}4 0 1 2 3\n"


def _box(*sides):
    """A box in the OFF format, of six rectangles."""
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    vertices = "".join("{} {} {}\n".format(*np.multiply(corner, sides)) for corner in corners)
    faces = ["0 1 3 2", "4 5 7 6", "0 1 5 4", "2 3 7 6", "0 2 6 4", "1 3 7 5"]
    return f"OFF8 6 0\n{vertices}" + "".join(f"4 {face}\n" for face in faces)


def _objects(part):
    """(class, name) of each object of a part; the numbers go on from part to part."""
    first = 1 if part == "train" else 1 + PARTS["train"]
    for class_name in CLASSES:
        for number in range(first, first + PARTS[part]):
            yield class_name, f"{class_name}_{number:04d}"


def _write_meshes(folder):
    for part in PARTS:
        for i, (class_name, name) in enumerate(_objects(part)):
            place = folder / class_name / part
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.off").write_text(_box(1 + i, 2, 3))
            (place / f"._{name}.off").write_text("of no use")
    return folder


def _write_text(folder, number=10):
    rng = np.random.default_rng(0)
    for part in PARTS:
        objects = list(_objects(part))
        for class_name, name in objects:
            (folder / class_name).mkdir(parents=True, exist_ok=True)
            rows = rng.normal(2, 1, (1030, 6)).round(6)
            lines = "\n".join(",".join(f"{x:.6f}" for x in row) for row in rows)
            (folder / class_name / f"{name}.txt").write_text(lines)
        names = [name for _, name in objects] + ["radio_0001"] * (number == 40)
        (folder / f"modelnet{number}_{part}.txt").write_text("\n".join(names) + "\n")
    return folder


def _write_parquet(folder):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in PARTS:
        classes, names = zip(*_objects(part), strict=True)
        points = pa.array(rng.normal(size=len(names) * 3072).astype(np.float16))
        table = pa.table(
            {
                "points": pa.FixedSizeListArray.from_arrays(points, 3072),
                "label": pa.array([CLASSES.index(c) for c in classes], pa.int8()),
                "name": names,
            }
        )
        parquet.write_table(table, folder / f"{part}.parquet")
    return folder


def test_unit_sphere():
    points = np.random.default_rng(0).normal(3, 5, (50, 3))
    cloud = unit_sphere(points)
    assert cloud.dtype == np.float32
    np.testing.assert_allclose(cloud.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(cloud, axis=1).max(), 1, rtol=1e-6)
    np.testing.assert_allclose(unit_sphere(7 * points - 2), cloud, atol=1e-6)
    with pytest.raises(ValueError, match="all points are the same"):
        unit_sphere(np.ones((4, 3)))
    with pytest.raises(ValueError, match="a point is not finite"):
        unit_sphere(np.array([[0, np.nan, 1.0]]))


def _check(data, folder_name, capfd):
    train, test = len(CLASSES) * PARTS["train"], len(CLASSES) * PARTS["test"]
    assert data.train_inputs.shape == (train, 1024, 3), folder_name
    assert data.test_inputs.shape == (test, 1024, 3)
    assert data.train_inputs.dtype == np.float32
    assert data.class_names == CLASSES
    np.testing.assert_array_equal(np.bincount(data.train_labels), [PARTS["train"]] * 10)
    np.testing.assert_array_equal(np.bincount(data.test_labels), [PARTS["test"]] * 10)
    for clouds in (data.train_inputs, data.test_inputs):
        np.testing.assert_allclose(clouds.mean(1), 0, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(clouds, axis=-1).max(1), 1, rtol=1e-6)
    assert capfd.readouterr() == ("", "")


def test_every_form_gives_the_same_objects_in_the_same_order(tmp_path, capfd):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    meshes = _write_meshes(tmp_path / "unpacked" / "ModelNet10")
    with zipfile.ZipFile(manual / "ModelNet10.zip", "w") as archive:
        for file in sorted(meshes.rglob("*.off"), reverse=True):
            archive.write(file, file.relative_to(meshes.parent))
        archive.writestr("__MACOSX/ModelNet10/._README.txt", "")
    from_archive = load_dataset("modelnet10", tmp_path)
    _check(from_archive, "archive", capfd)
    assert (tmp_path / "modelnet10" / "1.0.0").is_dir()

    forms = {"text": _write_text(tmp_path / "modelnet40_normal_resampled").parent}
    forms["parquet"] = _write_parquet(tmp_path / "parquet" / "modelnet10").parent
    for name, place in forms.items():
        data = load_dataset("modelnet10", tmp_path / "data" / name, place)
        _check(data, name, capfd)
        np.testing.assert_array_equal(data.train_labels, from_archive.train_labels)
        np.testing.assert_array_equal(data.test_labels, from_archive.test_labels)
        assert not np.array_equal(data.train_inputs, from_archive.train_inputs)


def test_clouds_of_meshes_lie_on_them_and_are_the_same_each_time(tmp_path):
    folder = _write_meshes(tmp_path)
    clouds = list(read_meshes(folder, "test"))
    assert [cloud.name for cloud in clouds] == [name for _, name in _objects("test")]
    for cloud, again in zip(clouds, read_meshes(folder, "test"), strict=True):
        np.testing.assert_array_equal(cloud.points, again.points)
    # A box's points lie on its sides: some coordinate is least or greatest.
    points = clouds[3].points
    sides = np.isclose(points, points.min(0), atol=1e-5) | np.isclose(points, points.max(0), 1e-5)
    assert sides.any(1).all()
    extent = points.max(0) - points.min(0)
    np.testing.assert_allclose(extent / extent[1] * 2, [4, 2, 3], rtol=0.02)


@pytest.mark.parametrize("number", [10, 40])
def test_clouds_of_text_are_the_first_points(number, tmp_path):
    folder = _write_text(tmp_path / "text", number)
    clouds = list(read_text(folder, "train"))
    assert [(CLASSES[c.label], c.name) for c in clouds] == list(_objects("train"))
    rows = np.loadtxt(folder / "chair" / "chair_0002.txt", delimiter=",")
    cloud = next(cloud for cloud in clouds if cloud.name == "chair_0002")
    np.testing.assert_array_equal(cloud.points, unit_sphere(rows[:1024, :3]))


def test_a_malformed_mesh_is_named(tmp_path):
    folder = _write_meshes(tmp_path / "modelnet10")
    file = folder / "desk" / "train" / "desk_0002.off"
    file.write_text(SQUARE_OFF[:-4])
    with pytest.raises(SourceError, match=re.escape(f"{file} is no usable mesh: the face '4 0 1'")):
        load_dataset("modelnet10", tmp_path, tmp_path)
    assert not (tmp_path / "modelnet10" / "1.0.0").exists()
    with pytest.raises(SystemExit, match=r"desk_0002.off is no usable mesh"):
        sources.main(["modelnet10", "--data_dir", str(tmp_path), "--manual_dir", str(tmp_path)])
    file.unlink()
    (file.parent / "desk_0001.off").unlink()
    with pytest.raises(SourceError, match=r"desk.train holds no \.off file"):
        list(read_meshes(folder, "train"))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("bed/bed_0001.txt", "1,2,3\n4,5,6\n", "bed_0001.txt holds 2 points of 3 numbers; 1024 "),
        ("bed/bed_0001.txt", "1,2\n" * 1024, "bed_0001.txt holds 1024 points of 2 numbers"),
        ("bed/bed_0001.txt", "1,2,x\n", "bed_0001.txt is no table of numbers"),
        ("bed/bed_0001.txt", "1,2,3\n" * 1024, "bed_0001: all points are the same"),
        ("modelnet10_train.txt", "radio_0001\n", "'radio_0001' is of none of the ten classes"),
        ("modelnet10_train.txt", "bed_0099\n", "bed_0099.txt is absent, though"),
    ],
)
def test_malformed_text_is_named(file, text, message, tmp_path):
    folder = _write_text(tmp_path)
    (folder / file).write_text(text)
    with pytest.raises(SourceError, match=re.escape(message)):
        list(read_text(folder, "train"))


def test_a_list_that_is_absent_is_named(tmp_path):
    with pytest.raises(
        SourceError, match=r"holds none of modelnet10_test.txt, modelnet40_test.txt"
    ):
        list(read_text(tmp_path, "test"))


def test_parquet_refuses(tmp_path, monkeypatch):
    folder = _write_parquet(tmp_path / "parquet")
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(folder / "train.parquet")
    parquet.write_table(
        table.set_column(1, "label", pa.array([3] * len(table))), folder / "train.parquet"
    )
    with pytest.raises(SourceError, match="'bathtub_0001' has the label 3; 0 is bathtub"):
        list(read_parquet(folder, "train"))
    for broken in (table.drop(["name"]), table.set_column(0, "points", pa.array([[1.0]] * 20))):
        parquet.write_table(broken, folder / "train.parquet")
        with pytest.raises(SourceError, match=r"train.parquet has no columns points \(of 3072\)"):
            list(read_parquet(folder, "train"))
    (folder / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"train.parquet has no columns points \(of 3072\)"):
        list(read_parquet(folder, "train"))

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SourceError, match=r"not installed: pip install 'otrw_jax\[parquet\]'"):
        load_dataset("modelnet10", tmp_path, folder)


def test_missing_modelnet_says_how_to_get_it(tmp_path, monkeypatch):
    import requests

    def unreachable(url, timeout):
        raise requests.ConnectionError("name resolution failed")

    monkeypatch.setattr(requests, "head", unreachable)
    with pytest.raises(DatasetNotFound) as caught:
        load_dataset("modelnet10", tmp_path)
    message = str(caught.value)
    assert "or put ModelNet10.zip or its folder ModelNet10 (meshes), modelnet40_normal" in message
    assert f"from {ModelNet10.archive_url} into {tmp_path / 'downloads' / 'manual'}" in message


def test_an_archive_of_something_else_is_refused(tmp_path, monkeypatch):
    archive = tmp_path / "other.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("readme", "")
    monkeypatch.setattr("requests.head", lambda url, timeout: _Closable())
    monkeypatch.setattr(
        "tensorflow_datasets.download.DownloadManager.download", lambda self, url: archive
    )
    with pytest.raises(SourceError, match=r"other.zip, from http://.* is no archive of modelnet10"):
        load_dataset("modelnet10", tmp_path)


class _Closable:
    def close(self):
        pass


@pytest.mark.parametrize(
    ("part", "sizes"),
    [
        ("train", [106, 515, 889, 200, 200, 465, 200, 680, 392, 344]),
        ("test", [50, 100, 100, 86, 86, 100, 86, 100, 100, 100]),
    ],
)
def test_the_real_clouds(part, sizes, shared_data):
    pytest.importorskip("pyarrow")
    clouds = list(read_parquet(shared_data / "modelnet10", part))
    np.testing.assert_array_equal(np.bincount([cloud.label for cloud in clouds]), sizes)
    points = np.stack([cloud.points for cloud in clouds])
    assert points.shape == (sum(sizes), 1024, 3)
    np.testing.assert_allclose(points.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1).max(1), 1, rtol=1e-6)
