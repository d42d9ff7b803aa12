"""Texts as word pieces, the inputs of BERT."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32

from otrw_jax.extras import brought_by

with brought_by("text", __name__):
    from tokenizers.implementations import BertWordPieceTokenizer
    from tokenizers.models import WordPiece

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def tokenize(
    texts: Sequence[str],
    vocab_path: str | os.PathLike,
    max_length: int,
    lowercase: bool = True,
) -> dict[str, Int32[np.ndarray, "n t"] | Bool[np.ndarray, "n t"]]:
    """Ids of the texts' word pieces, `[CLS]` before and `[SEP]` after each text.

    Texts are cleaned of control characters and split at white space, punctuation and CJK
    characters; each word is then the longest pieces of the vocabulary from its start on, or
    `[UNK]`. Devlin et al., NAACL 2019, section 3; Wu et al., arXiv:1609.08144, section 4.1.

    Args:
        texts: n of them.
        vocab_path: vocab.txt, a piece a line.
        max_length: longest sequence, `[CLS]` and `[SEP]` included; what is beyond is cut off.
        lowercase: whether letters are lowered and accents stripped: `do_lower_case` of the
            folder's tokenizer_config.json.

    Returns:
        `"ids"`, padded with `[PAD]` to the longest of these texts, and `"mask"`, true where there
        is no padding.

    Raises:
        FileNotFoundError: the vocabulary is not there.
        ValueError: there is no text, or one that is no string; `max_length` leaves no room for
            text; the vocabulary lacks a special piece.
    """
    if isinstance(texts, str) or len(texts) == 0:
        raise ValueError(f"texts is {texts!r}; it must be a sequence of one or more strings.")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{index}] is {text!r}; it must be a string.")
    if max_length < 3:
        raise ValueError(f"max_length is {max_length}; it must be 3 or more: [CLS], text, [SEP].")
    vocabulary = _read_vocabulary(vocab_path)
    tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=lowercase)
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(pad_id=vocabulary["[PAD]"])
    encodings = tokenizer.encode_batch(list(texts))
    return {
        "ids": np.array([encoding.ids for encoding in encodings], np.int32),
        "mask": np.array([encoding.attention_mask for encoding in encodings], bool),
    }


def check_vocabulary(vocab_path: str | os.PathLike, vocab_size: int) -> None:
    """Fails where a vocabulary is not that of a network.

    Args:
        vocab_path: vocab.txt, a piece a line.
        vocab_size: of the network's config.

    Raises:
        FileNotFoundError: the vocabulary is not there.
        ValueError: it has another size, or lacks a special piece.
    """
    found = 1 + max(_read_vocabulary(vocab_path).values())
    if found != vocab_size:
        raise ValueError(
            f"{vocab_path} has {found} pieces, and the config's vocab_size is {vocab_size}; the "
            "two must come from the same model."
        )


def _read_vocabulary(vocab_path: str | os.PathLike) -> dict[str, int]:
    path = pathlib.Path(vocab_path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; it is the vocab.txt of the folder the BERT is read from."
        )
    vocabulary = WordPiece.read_file(str(path))
    if missing := [piece for piece in SPECIAL if piece not in vocabulary]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it is no vocabulary of a BERT.")
    return vocabulary
