import numpy as np
import pytest
from PIL import Image

from experiments.pictures import classes as pictures
from experiments.pictures import convergence as curves
from experiments.pictures.sentences import sentences_picture
from experiments.pictures.style import DPI
from experiments.pictures.transport import transport_picture

NAMES = ["cat", "dog", "automobile"]


def read(path):
    """Pixels of a PNG file, and a check that it is a picture and alone in its folder."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    return pixels


def inches(pixels):
    height, width, _ = pixels.shape
    return width / DPI, height / DPI


def transport_results(n, m, titles):
    rng = np.random.default_rng(0)
    plan = np.full((n, m), 1 / (n * m))
    weights = rng.dirichlet(np.ones(n))
    return {
        title: (rng.random((n, m)), plan, weights[:, None] / m * plan**0, weights)
        for title in titles
    }


def test_one_panel_for_each_confusion_matrix(tmp_path):
    confusion = np.array([[8, 1, 1], [0, 0, 0], [2, 2, 1]])
    pictures.confusion_pictures(tmp_path / "a" / "one.png", {"one": confusion}, NAMES)
    pictures.confusion_pictures(
        tmp_path / "b" / "two.png", {"one": confusion, "two": confusion.T}, NAMES
    )
    width, height = inches(read(tmp_path / "a" / "one.png"))
    two_width, two_height = inches(read(tmp_path / "b" / "two.png"))
    assert height == two_height
    assert two_width - width == pytest.approx(4.2, abs=0.02)


def test_many_classes_fit_into_a_confusion_matrix(tmp_path):
    names = [f"class {i}" for i in range(100)]
    pictures.confusion_pictures(tmp_path / "many.png", {"many": np.eye(100)}, names)
    read(tmp_path / "many.png")


def test_of_very_many_classes_neighbours_are_shown_together(tmp_path, monkeypatch):
    counts = np.arange(25).reshape(5, 5)
    blocks = np.array(
        [
            [0 + 1 + 5 + 6, 2 + 3 + 7 + 8, 4 + 9],
            [10 + 11 + 15 + 16, 12 + 13 + 17 + 18, 14 + 19],
            [20 + 21, 22 + 23, 24],
        ]
    )
    np.testing.assert_array_equal(pictures.in_blocks(counts, 2), blocks)
    np.testing.assert_array_equal(pictures.in_blocks(counts, 1), counts)
    in_blocks, sizes = pictures.in_blocks, []
    monkeypatch.setattr(pictures, "in_blocks", lambda x, n: sizes.append(n) or in_blocks(x, n))
    monkeypatch.setattr(pictures, "ROWS", 3)
    pictures.confusion_pictures(tmp_path / "many.png", {"many": counts}, list("abcde"))
    read(tmp_path / "many.png")
    assert sizes == [2]


@pytest.mark.parametrize("k", [3, 100])
def test_class_weights(tmp_path, k):
    counts = np.geomspace(500, 5, k).astype(int)
    weights = {"IF 100": 1 / counts, "uniform": np.full(k, 1 / counts.sum())}
    pictures.class_weights_picture(
        tmp_path / "weights.png", counts, weights, [str(i) for i in range(k)]
    )
    assert inches(read(tmp_path / "weights.png")) == pytest.approx((8, 4.4), abs=0.02)


def test_one_column_for_each_cost(tmp_path):
    labels = np.array([2, 0, 0, 1, 0, 1])
    for columns in (1, 2):
        results = transport_results(6, 3, [f"cost {i}" for i in range(columns)])
        path = tmp_path / str(columns) / "transport.png"
        transport_picture(path, results, labels)
        expected = (4.8 * columns + 1.4, 8.4)
        assert inches(read(path)) == pytest.approx(expected, abs=0.02)


def test_the_order_of_the_examples_does_not_show(tmp_path):
    labels = np.array([0, 0, 0, 1, 1, 2])
    results = transport_results(6, 3, ["cost"])
    # Reversed classes with the order inside each class kept.
    order = np.array([5, 3, 4, 0, 1, 2])
    shuffled = {title: tuple(x[order] for x in result) for title, result in results.items()}
    transport_picture(tmp_path / "a" / "t.png", results, labels)
    transport_picture(tmp_path / "b" / "t.png", shuffled, labels[order])
    np.testing.assert_array_equal(read(tmp_path / "a" / "t.png"), read(tmp_path / "b" / "t.png"))


def test_a_picture_replaces_the_one_before(tmp_path):
    path = tmp_path / "weights.png"
    path.write_bytes(b"not a picture")
    pictures.class_weights_picture(path, np.ones(3, int), {"w": np.arange(3.0)}, NAMES)
    read(path)


def test_wrong_shapes_and_nothing_to_draw_are_errors(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(ValueError, match="empty"):
        pictures.confusion_pictures(path, {}, NAMES)
    with pytest.raises(ValueError, match="'CE'"):
        pictures.confusion_pictures(path, {"CE": np.eye(4)}, NAMES)
    with pytest.raises(ValueError, match="empty"):
        pictures.class_weights_picture(path, np.ones(3, int), {}, NAMES)
    with pytest.raises(ValueError, match="'w'"):
        pictures.class_weights_picture(path, np.ones(3, int), {"w": np.ones(1)}, NAMES)
    with pytest.raises(ValueError, match="empty"):
        transport_picture(path, {}, np.zeros(2, int))
    with pytest.raises(ValueError, match="plan after"):
        cost, before, after, weights = transport_results(4, 2, ["c"])["c"]
        transport_picture(path, {"c": (cost, before, after.T, weights)}, np.zeros(4, int))
    assert not path.exists()


def test_the_sentences_that_weigh_most_and_least(tmp_path):
    path = tmp_path / "sentences.png"
    texts = [f"sentence {i} for $ {i} and $ {i}" for i in range(40)]
    labels = np.r_[np.zeros(36, int), np.ones(4, int)]
    sentences_picture(path, texts, labels, np.arange(40.0), ["bad", "good"])
    # Ten of the large class, all four of the small one.
    assert inches(read(path)) == pytest.approx((13, 0.9 + 0.28 * 14), abs=0.02)
    with pytest.raises(ValueError, match="40 sentences, 40 labels and 39 weights"):
        sentences_picture(path, texts, labels, np.arange(39.0), ["bad", "good"])


@pytest.fixture
def drawn(monkeypatch):
    """Figures in place of the files that would be written."""
    figures = []
    for module in (pictures, curves):
        monkeypatch.setattr(module, "save", lambda figure, path: figures.append(figure))
    return figures


def test_no_marker_of_the_weights_is_cut_or_hidden(drawn):
    counts = np.array([500, 50, 5])
    weights = {"one": np.array([0.0, 1.0, 4.0]), "raw": np.array([-0.5, 1.0, 3.0])}
    pictures.class_weights_picture("x.png", counts, weights, NAMES)
    panel = counts, weights["one"]
    pictures.class_weights_panels("x.png", {"one": panel, "other": panel}, NAMES)
    for figure in drawn:
        figure.draw_without_rendering()
        above = figure.axes[0]
        points = np.concatenate([line.get_xydata() for line in above.lines])
        places = above.transData.transform(points)
        # Markers are 6 points wide, here 72 to an inch.
        radius = 3 * figure.dpi / 72
        low, high = above.get_window_extent().get_points()
        assert (places > low + radius - 0.5).all() and (places < high - radius + 0.5).all()
        # The counts stand in a panel of their own.
        assert [text.get_text() for text in figure.axes[-1].texts] == ["500", "50", "5"]
        assert not above.texts and figure.axes[-1] is not above


def history(first, second, every):
    records = [
        {"number": n, "stage": "stage1" if n <= first else "stage2", "loss": 1 / n}
        for n in range(1, first + second + 1)
    ]
    for record in records:
        if record["number"] % every == 0:
            record["test"] = {"error": 30.0 - record["number"]}
    return records


def test_convergence_counts_the_epochs_of_all_stages(drawn):
    histories = {"ce": history(6, 0, 2), "otrw": history(6, 3, 3)}
    curves.convergence_picture("x.png", histories)
    losses, accuracies = drawn[0].axes
    lines = {line.get_label(): line.get_xdata() for line in losses.lines}
    np.testing.assert_array_equal(lines["ce"], np.arange(1, 7))
    np.testing.assert_array_equal(lines["otrw"], np.arange(1, 10))
    np.testing.assert_array_equal(accuracies.lines[1].get_xydata(), [[3, 73], [6, 76], [9, 79]])
    for axes in (losses, accuracies):
        # Where the second stage begins; the first of both runs is one.
        assert [text.get_text() for text in axes.texts] == ["stage2"]
        assert [axes.lines[-1].get_xdata()[0]] == [6.5]
        ticks = axes.get_xticks()
        np.testing.assert_array_equal(ticks, np.round(ticks))


def test_convergence_without_two_evaluations_is_of_the_loss_alone(drawn):
    curves.convergence_picture("x.png", {"ce": history(4, 0, 4)})
    (losses,) = drawn[0].axes
    assert "loss" in losses.get_ylabel()
    with pytest.raises(ValueError, match="give runs that have records"):
        curves.convergence_picture("x.png", {"ce": []})
