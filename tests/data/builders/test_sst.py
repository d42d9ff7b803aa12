import re
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otrw_jax.data import sources
from otrw_jax.data.builders.manual import SourceError
from otrw_jax.data.builders.sst import Sst, parse_tree, read_trees
from otrw_jax.data.sources import DatasetNotFound, load_dataset
from otrw_jax.data.splits import groups_of_copies, make_split_of_counts

TREES = {
    "train.txt": "(3 (2 It) (4 (4 (3 works) (2 -LRB-)) (2 André)))\n"
    "(0 (1 bad) (2 and\\/or))\n"
    "(2 (2 8\xa01\\/2) (2 \\*))\n"
    "(4 (2 ``) (2 (3 good) (2 '')))\n",
    "dev.txt": "(1 (2 meh) (2 .))\n",
    "test.txt": "(2 (2 so) (2 -RRB-))\n(1 (2 `) (2 no))\n",
}
TREE = "(3 (2 It) (4 (4 (3 works) (2 fine)) (2 .)))"


def _write(folder, files=TREES):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    return folder


def _content(inputs, labels):
    return sorted(zip(inputs.tolist(), labels.tolist(), strict=True))


_words = st.text("ab3.é'\\/-\xa0", min_size=1, max_size=5)
_digits = st.sampled_from("01234")
_trees = st.recursive(
    st.tuples(_digits, _words),
    lambda inner: st.tuples(_digits, inner, inner),
    max_leaves=8,
)


def _written(tree):
    label, *held = tree
    return f"({label} {' '.join(x if isinstance(x, str) else _written(x) for x in held)})"


def _words_of(tree):
    return [w for x in tree[1:] for w in ([x] if isinstance(x, str) else _words_of(x))]


@given(_trees)
def test_a_written_tree_is_read_back(tree):
    assert parse_tree(_written(tree)) == (int(tree[0]), _words_of(tree))


@given(_trees, st.data())
def test_no_part_of_a_tree_is_a_tree(tree, data):
    line = _written(tree)
    cut = data.draw(st.integers(0, len(line) - 1))
    with pytest.raises(ValueError, match=r"tree|bracket"):
        parse_tree(line[:cut])
    brackets = [i for i, character in enumerate(line) if character in "()"]
    lost = data.draw(st.sampled_from(brackets))
    with pytest.raises(ValueError, match=r"tree|bracket|word"):
        parse_tree(line[:lost] + line[lost + 1 :])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the tree is cut off, with 0 brackets open"),
        (TREE[:-1], "the tree is cut off, with 1 brackets open"),
        (TREE[:20], "the tree is cut off, with 4 brackets open"),
        (TREE + ")", "')' follows after the tree's end"),
        (TREE + TREE, "'(3' follows after the tree's end"),
        ("(5 so)", "a bracket opens without a label from 0 to 4"),
        ("(so good)", "a bracket opens without a label from 0 to 4"),
        ("(33 so)", "a bracket opens without a label from 0 to 4"),
        ("(3 so good)", "the word 'good' stands where a node should"),
        ("(3 (2 so) good)", "the word 'good' stands where a node should"),
        ("so", "the word 'so' stands where a node should"),
        ("(3 (2 so))", "a bracket closes on neither a word nor two nodes"),
        ("(3 )", "a bracket closes on neither a word nor two nodes"),
        ("(3 (2 a) (2 b) (2 c))", "a bracket closes on neither a word nor two nodes"),
        (")", "a bracket closes on neither a word nor two nodes"),
    ],
)
def test_what_is_no_tree_is_refused(line, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_tree(line)


def test_both_configs_are_made_of_the_trees(tmp_path, capfd):
    manual = _write(tmp_path / "given" / "sst" / "trees").parents[1]
    five = load_dataset("sst5", tmp_path, manual)
    assert five.class_names == ("very negative", "negative", "neutral", "positive", "very positive")
    assert five.train_inputs.dtype.kind == "U"
    assert five.train_labels.dtype == np.int32
    assert _content(five.train_inputs, five.train_labels) == [
        ('" good "', 4),
        ("8 1/2 *", 2),
        ("It works ( André", 3),
        ("bad and/or", 0),
    ]
    assert _content(five.test_inputs, five.test_labels) == [("' no", 1), ("so )", 2)]

    two = load_dataset("sst2", tmp_path, str(manual))
    assert two.class_names == ("negative", "positive")
    assert _content(two.train_inputs, two.train_labels) == [
        ('" good "', 1),
        ("It works ( André", 1),
        ("bad and/or", 0),
    ]
    assert _content(two.test_inputs, two.test_labels) == [("' no", 0)]
    assert capfd.readouterr() == ("", "")
    assert load_dataset("sst2", tmp_path).train_inputs.tolist() == two.train_inputs.tolist()


def test_the_archive_serves_as_well_and_the_order_is_that_of_the_content(tmp_path, capsys):
    archive = tmp_path / "downloads" / "manual" / "trainDevTestTrees_PTB.zip"
    archive.parent.mkdir(parents=True)
    lines = TREES["train.txt"].splitlines(keepends=True)
    with zipfile.ZipFile(archive, "w") as out:
        for name, text in TREES.items():
            text = "".join(reversed(lines)) if name == "train.txt" else text
            out.writestr(f"trees/{name}", text.replace("\n", "\r\n"))
    sources.main(["sst5", "--data_dir", str(tmp_path)])
    assert capsys.readouterr().out == (
        "sst5: 4 training and 2 test sentences, 5 classes, "
        f"in {tmp_path / 'sst' / 'sst5' / '1.0.0'}\n"
    )
    other = load_dataset("sst5", tmp_path / "other", _write(tmp_path / "trees"))
    assert other.train_inputs.tolist() == load_dataset("sst5", tmp_path).train_inputs.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TREES["train.txt"][:-2], "train.txt, line 4: the tree is cut off, with 1 brackets open"),
        ("(2 so)\n\n(2 so)\n", "train.txt, line 2: the tree is cut off"),
        ("", "train.txt, line 1: the tree is cut off"),
    ],
)
def test_a_malformed_file_is_named_with_the_line(text, message, tmp_path):
    manual = _write(tmp_path / "trees", {**TREES, "train.txt": text})
    with pytest.raises(SourceError, match=re.escape(str(manual / message))):
        load_dataset("sst2", tmp_path, manual)
    assert not (tmp_path / "sst" / "sst2" / "1.0.0").exists()


def test_a_file_in_another_encoding_is_named(tmp_path):
    manual = _write(tmp_path / "trees")
    (manual / "train.txt").write_bytes("(2 André)\n".encode("latin-1"))
    with pytest.raises(SystemExit, match=r"train.txt is no UTF-8 text"):
        sources.main(["sst2", "--data_dir", str(tmp_path), "--manual_dir", str(manual)])


def test_blank_lines_at_the_end_of_a_file_are_none(tmp_path):
    file = tmp_path / "train.txt"
    for end in ("", "\n", "\n\n", "\r\n \r\n"):
        file.write_bytes(f"{TREE}\n{TREE}{end}".encode())
        assert list(read_trees(file)) == [(3, "It works fine .")] * 2


def test_missing_trees_say_how_to_get_them(tmp_path, monkeypatch):
    import requests

    def unreachable(url, timeout):
        raise requests.ConnectionError("name resolution failed")

    monkeypatch.setattr(requests, "head", unreachable)
    manual = _write(tmp_path / "some", {"train.txt": TREES["train.txt"]})
    with pytest.raises(DatasetNotFound) as caught:
        load_dataset("sst2", tmp_path, manual)
    message = str(caught.value)
    assert f"sst2 is not in {tmp_path / 'sst' / 'sst2' / '1.0.0'}" in message
    assert "python -m otrw_jax.data.sources sst2 --data_dir DIR" in message
    assert "put train.txt, dev.txt and test.txt, in a folder sst, or train" in message
    assert f"https://nlp.stanford.edu/sentiment/trainDevTestTrees_PTB.zip into {manual}" in message
    assert "name resolution failed" in message


@pytest.mark.parametrize(
    ("name", "train", "test", "left_out", "majority", "minorities"),
    [
        ("sst2", [3310, 3610], [912, 909], 11, 1000, [100, 50, 20, 10]),
        ("sst5", [1092, 2218, 1624, 2322, 1288], [279, 633, 389, 510, 399], 12, 500, [75, 60, 50]),
    ],
)
def test_the_real_treebank_has_room_for_the_protocol(
    name, train, test, left_out, majority, minorities, shared_data
):
    classes = Sst.builder_configs[name].classes

    def read(part):
        trees = read_trees(shared_data / "sst" / "trees" / f"{part}.txt")
        labels, texts = zip(*(tree for tree in trees if classes[tree[0]] is not None), strict=True)
        return np.array(texts), np.array([classes[label] for label in labels])

    (texts, labels), (test_texts, test_labels) = read("train"), read("test")
    np.testing.assert_array_equal(np.bincount(labels), train)
    np.testing.assert_array_equal(np.bincount(test_labels), test)
    groups = groups_of_copies(texts, test_texts)
    for minority in minorities:
        counts = np.full(len(train), majority)
        counts[1] = minority
        split = make_split_of_counts(
            labels, counts, seed=0, meta_per_class=10, extra_per_class=500, groups=groups
        )
        assert split.left_out == left_out
        chosen = texts[np.concatenate([split.train, split.meta, split.extra])]
        assert len(chosen) == counts.sum() + 510 * len(train)
        assert len({*chosen, *test_texts}) == len(chosen) + len(test_texts)
