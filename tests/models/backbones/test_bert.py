import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otrw_jax.models.backbones.bert import ACTIVATIONS, POOLINGS, Bert, BertConfig
from otrw_jax.models.backbones.hugging_face import load_bert
from otrw_jax.models.heads import LinearHead
from otrw_jax.models.model import count_parameters, flax_model

FOLDER = pathlib.Path(__file__).parent / "data" / "tiny_bert"
GOLDEN = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))
SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "layer_norm_eps": 0.01,
}
IDS = np.array(GOLDEN["inputs"]["lowercase"]["ids"], np.int32)
MASK = np.array(GOLDEN["inputs"]["lowercase"]["mask"], bool)


@functools.cache
def params_of(pooling):
    return load_bert(FOLDER, pooling)[1]


def features(pooling, ids=IDS, mask=MASK, hidden_act="gelu", **options):
    network = Bert(BertConfig(**SIZES, hidden_act=hidden_act), pooling, **options)
    inputs = {"ids": jnp.asarray(ids), "mask": jnp.asarray(mask)}
    return network.apply({"params": params_of(pooling)}, inputs, train=False)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("hidden_act", GOLDEN["features"])
def test_features_are_those_of_transformers(hidden_act, pooling):
    expected = GOLDEN["features"][hidden_act][pooling]
    z = features(pooling, hidden_act=hidden_act)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, expected, atol=1e-4)


@pytest.mark.parametrize("hidden_act", ACTIVATIONS)
@pytest.mark.filterwarnings("ignore")  # Those of transformers are its own.
def test_installed_transformers_agrees(hidden_act):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = transformers.BertModel.from_pretrained(FOLDER, hidden_act=hidden_act).eval()
    with torch.no_grad():
        output = model(input_ids=torch.tensor(IDS).long(), attention_mask=torch.tensor(MASK).long())
    hidden = output.last_hidden_state.numpy()
    mean = (hidden * MASK[..., None]).sum(1) / MASK.sum(1, keepdims=True)
    expected = {"cls": hidden[:, 0], "pooler": output.pooler_output.numpy(), "mean": mean}
    for pooling in POOLINGS:
        z = features(pooling, hidden_act=hidden_act)
        np.testing.assert_allclose(z, expected[pooling], atol=1e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_nothing(pooling):
    other_padding = np.where(MASK, IDS, 7)
    z = features(pooling, other_padding)
    np.testing.assert_allclose(z, features(pooling), atol=1e-5)
    unpadded = IDS[:1, MASK[0]]
    assert unpadded.shape[1] < IDS.shape[1]
    alone = features(pooling, unpadded, np.ones_like(unpadded))
    np.testing.assert_allclose(alone, z[:1], atol=1e-5)


def test_unit_length_and_an_empty_mask():
    mask = MASK & (np.arange(len(MASK)) > 0)[:, None]
    z = features("mean", mask=mask, unit_length=True)
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), [0, 1, 1, 1], atol=1e-6)
    plain = np.asarray(features("mean"))[1:]
    np.testing.assert_allclose(
        z[1:], plain / np.linalg.norm(plain, axis=-1, keepdims=True), atol=1e-6
    )


def test_activations_in_bfloat16_give_nearly_the_same():
    z = features("mean", dtype=jnp.bfloat16)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, features("mean"), atol=0.1)


def test_parameter_count():
    model = flax_model(Bert(BertConfig(**SIZES), "pooler"), LinearHead(3))
    inputs = {"ids": jnp.asarray(IDS), "mask": jnp.asarray(MASK)}
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
    d, wide = 16, 32
    norm = 2 * d
    layer = 4 * (d * d + d) + (d * wide + wide) + (wide * d + d) + 2 * norm
    embeddings = (30 + 20 + 2) * d + norm
    assert count_parameters(variables["params"]["backbone"]) == embeddings + 2 * layer + d * d + d
    assert count_parameters(variables["params"]["head"]) == 3 * d + 3
    assert variables["state"] == {}


def test_every_parameter_is_trained():
    model = flax_model(
        Bert(BertConfig(**{**SIZES, "num_hidden_layers": 1}), "pooler"), LinearHead(3)
    )
    inputs = {"ids": jnp.asarray(IDS), "mask": jnp.asarray(MASK)}
    params = {name: part for name, part in params_of("pooler").items() if name != "layer_1"}

    def loss(params):
        variables = {"params": {"backbone": params, "head": {}}, "state": {}}
        z, state = model.features(variables, inputs, True)
        assert state == {}
        return jnp.sum(z[:, 0])

    gradients = jax.jit(jax.grad(loss))(params)
    for path, gradient in jax.tree.leaves_with_path(gradients):
        # A bias of the keys adds the same to all scores of a query, which the softmax ignores.
        is_key_bias = "['key']['bias']" in jax.tree_util.keystr(path)
        size = np.abs(gradient).max()
        assert np.isfinite(size) and (size < 1e-5 if is_key_bias else size > 1e-4), path


def test_long_sequences_and_unknown_poolings_are_refused():
    with pytest.raises(ValueError, match=r"21 word pieces.* positions for 20"):
        features("cls", np.zeros((1, 21), np.int32), np.ones((1, 21), bool))
    with pytest.raises(ValueError, match="'max'; choose one of cls, pooler, mean"):
        Bert(BertConfig(**SIZES), "max").init(jax.random.key(0), {"ids": IDS, "mask": MASK}, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 15}, "hidden_size is 15 and num_attention_heads is 2"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"hidden_act": "swish"}, "'swish'; choose one of gelu, "),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        BertConfig(**{**SIZES, **changes})
