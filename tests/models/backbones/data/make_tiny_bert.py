"""Writes tiny_bert/: a random BERT in the Hugging Face layout, and what transformers makes of it.

`python tests/models/backbones/data/make_tiny_bert.py`, with torch and transformers 5 installed.
"""

import json
import pathlib

import torch
from transformers import BertConfig, BertModel, BertTokenizer

FOLDER = pathlib.Path(__file__).parent / "tiny_bert"
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "a", "movie", "was", "film", "good", "bad", "great", "un", "##un", "##watch"),
    *("##able", "watch", "##ed", "not", ",", ".", "!", "'", "t", "don", "cafe", "i", "it", "电"),
]
TEXTS = [
    "The movie was GREAT!",
    "unwatchable.",
    "Café: a film, don't watch it . . . not good",
    "电影 [MASK]\tunwatched",
]
MAX_LENGTH = 12
ACTIVATIONS = ("gelu", "gelu_new", "relu")


def main() -> None:
    """Writes the folder."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
        layer_norm_eps=0.01,  # Large enough to be missed.
    )
    model = BertModel(config).eval()
    with torch.no_grad():
        # Large enough that every part of the network matters.
        for name, parameter in model.named_parameters():
            center = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(center + 0.4 * torch.randn_like(parameter))
    model.save_pretrained(FOLDER)
    vocabulary = FOLDER / "vocab.txt"
    vocabulary.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")

    inputs = {}
    for name, lowercase in (("lowercase", True), ("cased", False)):
        tokenizer = BertTokenizer(vocab=str(vocabulary), do_lower_case=lowercase)
        encoded = tokenizer(TEXTS, padding=True, truncation=True, max_length=MAX_LENGTH)
        inputs[name] = {"ids": encoded["input_ids"], "mask": encoded["attention_mask"]}
    golden = {"texts": TEXTS, "max_length": MAX_LENGTH, "inputs": inputs, "features": {}}
    for activation in ACTIVATIONS:
        golden["features"][activation] = features(activation, inputs["lowercase"])
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    (FOLDER / "golden.json").write_text(text + "\n", encoding="utf-8")


def features(activation: str, inputs: dict) -> dict[str, list[list[float]]]:
    """The three poolings of the last layer, to six decimals."""
    model = BertModel.from_pretrained(FOLDER, hidden_act=activation).eval()
    mask = torch.tensor(inputs["mask"])
    with torch.no_grad():
        output = model(input_ids=torch.tensor(inputs["ids"]), attention_mask=mask)
    hidden, weights = output.last_hidden_state, mask[..., None].float()
    poolings = {
        "cls": hidden[:, 0],
        "pooler": output.pooler_output,
        "mean": (hidden * weights).sum(1) / weights.sum(1),
    }
    return {
        name: [[round(value, 6) for value in row] for row in z.tolist()]
        for name, z in poolings.items()
    }


if __name__ == "__main__":
    main()
