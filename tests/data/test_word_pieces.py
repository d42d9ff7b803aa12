import json
import pathlib

import numpy as np
import pytest

from otrw_jax.data.word_pieces import check_vocabulary, tokenize

FOLDER = pathlib.Path(__file__).parents[1] / "models" / "backbones" / "data" / "tiny_bert"
GOLDEN = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))
VOCAB = FOLDER / "vocab.txt"


@pytest.mark.parametrize("case", GOLDEN["inputs"])
def test_ids_are_those_of_transformers(case):
    lowercase = case == "lowercase"
    inputs = tokenize(GOLDEN["texts"], str(VOCAB), GOLDEN["max_length"], lowercase)
    assert inputs["ids"].dtype == np.int32
    assert inputs["mask"].dtype == bool
    np.testing.assert_array_equal(inputs["ids"], GOLDEN["inputs"][case]["ids"])
    np.testing.assert_array_equal(inputs["mask"], GOLDEN["inputs"][case]["mask"])


def test_padding_is_to_the_longest_and_truncation_to_the_limit():
    pieces = VOCAB.read_text(encoding="utf-8").split()
    texts = ("film", "", "the film was not good")
    inputs = tokenize(texts, VOCAB, 100)
    assert [[pieces[i] for i in row] for row in inputs["ids"]] == [
        ["[CLS]", "film", "[SEP]", "[PAD]", "[PAD]", "[PAD]", "[PAD]"],
        ["[CLS]", "[SEP]", "[PAD]", "[PAD]", "[PAD]", "[PAD]", "[PAD]"],
        ["[CLS]", "the", "film", "was", "not", "good", "[SEP]"],
    ]
    np.testing.assert_array_equal(inputs["mask"].sum(1), [3, 2, 7])
    short = tokenize(texts, VOCAB, 4)
    assert short["ids"].shape == (3, 4)
    assert [pieces[i] for i in short["ids"][2]] == ["[CLS]", "the", "film", "[SEP]"]
    assert short["mask"][2].all()


def test_padding_has_the_vocabulary_s_id(tmp_path):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("[UNK]\n[CLS]\n[SEP]\nfilm\n[PAD]\n")
    inputs = tokenize(["film", ""], vocab, 8)
    np.testing.assert_array_equal(inputs["ids"], [[1, 3, 2], [1, 2, 4]])


def test_vocabulary_of_another_model_is_refused():
    check_vocabulary(VOCAB, 30)
    with pytest.raises(ValueError, match=r"vocab\.txt has 30 pieces.* vocab_size is 30522"):
        check_vocabulary(VOCAB, 30522)


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent is not there"):
        tokenize(["film"], tmp_path / "absent", 8)
    lacking = tmp_path / "vocab.txt"
    lacking.write_text("[UNK]\n[CLS]\nfilm\n")
    with pytest.raises(ValueError, match=r"lacks \[PAD\], \[SEP\]"):
        tokenize(["film"], lacking, 8)
    with pytest.raises(ValueError, match="max_length is 2"):
        tokenize(["film"], VOCAB, 2)
    with pytest.raises(ValueError, match=r"texts\[1\] is nan; it must be a string"):
        tokenize(["film", float("nan")], VOCAB, 8)
    for texts in ("film", []):
        with pytest.raises(ValueError, match="one or more strings"):
            tokenize(texts, VOCAB, 8)
