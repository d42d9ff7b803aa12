"""BERT: a transformer encoder for texts in word pieces."""

import dataclasses
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from otrw_jax.models.heads import unit

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_new": partial(nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(nn.gelu, approximate=True),
    "relu": nn.relu,
}
"""`hidden_act` to the function; "gelu" is exact, by erf, the two after it are its tanh form."""
POOLINGS = ("cls", "pooler", "mean")


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT; the fields have the names of Hugging Face's config.json.

    Attributes:
        vocab_size: number of word pieces.
        hidden_size: width of the features.
        num_hidden_layers: how many layers.
        num_attention_heads: heads of each layer; they divide the width.
        intermediate_size: width inside each layer's feed-forward part.
        max_position_embeddings: the longest sequence, in word pieces.
        type_vocab_size: kinds of tokens; all tokens are of the first.
        layer_norm_eps: what layer normalisation adds to the variance.
        hidden_act: a key of `ACTIVATIONS`.

    Raises:
        ValueError: a size is not a positive integer, the heads do not divide the width, or there
            is no such activation.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and not (isinstance(value, int) and value > 0):
                raise ValueError(f"{field.name} is {value!r}; it must be a positive integer.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size is {self.hidden_size} and num_attention_heads is "
                f"{self.num_attention_heads}; the heads must divide the width."
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(
                f"hidden_act is {self.hidden_act!r}; choose one of {', '.join(ACTIVATIONS)}."
            )


class Bert(nn.Module):
    """BERT without a head: word pieces to features `[b d]`.

    Inputs are `{"ids": [b t], "mask": [b t]}`: ids of word pieces, and which of them are text
    rather than padding, as booleans or as 1 and 0 (`otrw_jax.data.word_pieces.tokenize`). Padding
    that the mask hides does not change the features. Every token is of the first type. Devlin et
    al., BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding, NAACL
    2019; layer normalisation follows each residual sum.

    There is no dropout, in training either: `Model.features` is given no random key. Parameters
    start truncated normal with deviation 0.02, biases at zero; `load_bert` reads trained ones.

    Attributes:
        config: sizes.
        pooling: how the last layer's vectors become one. "cls": the first token's. "pooler": the
            same after a dense layer and tanh, as in pre-training. "mean": the mean over the mask,
            as sentence encoders have it; zero where the mask is empty.
        unit_length: whether features are scaled to length one.
        dtype: type of the activations. Parameters and features are float32.

    Raises:
        ValueError: there is no such pooling, or the sequence is longer than
            `max_position_embeddings`; raised when the module is called.
    """

    config: BertConfig
    pooling: str = "cls"
    unit_length: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, inputs: dict[str, Array], train: bool) -> Float[Array, "b d"]:
        del train  # Training and evaluation do not differ.
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling is {self.pooling!r}; choose one of {', '.join(POOLINGS)}.")
        mask = inputs["mask"].astype(bool)
        x = _Embeddings(self.config, self.dtype, name="embeddings")(inputs["ids"])
        for layer in range(self.config.num_hidden_layers):
            x = _Layer(self.config, self.dtype, name=f"layer_{layer}")(x, mask)
        x = x.astype(jnp.float32)
        if self.pooling == "mean":
            z = _masked_mean(x, mask)
        else:
            z = x[:, 0]
            if self.pooling == "pooler":
                z = jnp.tanh(_dense(z.shape[-1], jnp.float32, name="pooler")(z))
        return unit(z, axis=-1) if self.unit_length else z


_initial = nn.initializers.truncated_normal(0.02)


def _dense(features: int, dtype: DTypeLike, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=_initial, dtype=dtype, name=name)


class _Embeddings(nn.Module):
    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, ids: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        config, length = self.config, ids.shape[1]
        if length > config.max_position_embeddings:
            raise ValueError(
                f"the sequence has {length} word pieces; this BERT has positions for "
                f"{config.max_position_embeddings}: tokenize with a smaller max_length."
            )
        embed = partial(
            nn.Embed, features=config.hidden_size, embedding_init=_initial, dtype=self.dtype
        )
        x = embed(config.vocab_size, name="word")(ids)
        x += embed(config.max_position_embeddings, name="position")(jnp.arange(length)[None])
        x += embed(config.type_vocab_size, name="token_type")(jnp.zeros((1, 1), jnp.int32))
        return nn.LayerNorm(config.layer_norm_eps, self.dtype, name="norm")(x)


class _Layer(nn.Module):
    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"]) -> Float[Array, "b t d"]:
        config = self.config
        dense = partial(_dense, dtype=self.dtype)
        norm = partial(nn.LayerNorm, config.layer_norm_eps, self.dtype)
        heads = (*x.shape[:2], config.num_attention_heads, -1)
        query, key, value = (
            dense(config.hidden_size, name=name)(x).reshape(heads)
            for name in ("query", "key", "value")
        )
        attended = jax.nn.dot_product_attention(query, key, value, mask=mask[:, None, None, :])
        attended = dense(config.hidden_size, name="attended")(attended.reshape(x.shape))
        x = norm(name="attention_norm")(x + attended)
        y = ACTIVATIONS[config.hidden_act](dense(config.intermediate_size, name="intermediate")(x))
        return norm(name="norm")(x + dense(config.hidden_size, name="output")(y))


def _masked_mean(x: Float[Array, "b t d"], mask: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    count = jnp.sum(mask, axis=1, keepdims=True)
    return jnp.sum(jnp.where(mask[..., None], x, 0.0), axis=1) / jnp.maximum(count, 1)
