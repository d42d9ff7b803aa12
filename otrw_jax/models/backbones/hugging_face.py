"""Trained BERTs from folders in the Hugging Face layout: config.json and model.safetensors."""

import dataclasses
import json
import os
import pathlib

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from otrw_jax.models.backbones.bert import Bert, BertConfig
from otrw_jax.models.weights.files import read_safetensors

CONFIG, TENSORS = "config.json", "model.safetensors"
LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "norm": "output.LayerNorm",
}
EMBEDDINGS = {
    "word": "word_embeddings",
    "position": "position_embeddings",
    "token_type": "token_type_embeddings",
    "norm": "LayerNorm",
}


def load_bert(folder: str | os.PathLike, pooling: str = "cls") -> tuple[BertConfig, PyTree]:
    """Sizes and parameters of a trained BERT.

    Tensors may have the prefix "bert." and the older names gamma and beta of layer normalisation;
    those of heads are ignored. Parameters are float32, whatever the file holds.

    Args:
        folder: holds config.json, of model_type "bert", and model.safetensors.
        pooling: that of the `Bert` the parameters are for; "pooler" alone needs the pooler's.

    Returns:
        The config, and the parameters as `Bert(config, pooling).init` arranges them.

    Raises:
        FileNotFoundError: one of the two files is not there.
        ValueError: a file cannot be read, the config is of another kind of model, or the tensors
            are not those of the config: all that are missing, of another shape or too many for
            it are listed.
    """
    folder = pathlib.Path(folder).expanduser()
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no {name}; a BERT is read from a folder with {CONFIG} and "
                f"{TENSORS}, as transformers' save_pretrained writes it."
            )
    config = _read_config(folder / CONFIG)
    found = _read_tensors(folder / TENSORS)
    inputs = {name: jax.ShapeDtypeStruct((1, 1), jnp.int32) for name in ("ids", "mask")}
    network = Bert(config, pooling)
    expected = jax.eval_shape(
        lambda x: network.init(jax.random.key(0), x, train=False)["params"], inputs
    )
    expected = flax.traverse_util.flatten_dict(expected)
    names = {path: _tensor_name(path) for path in expected}
    shapes = {names[path]: _tensor_shape(path, leaf.shape) for path, leaf in expected.items()}
    _check(folder / TENSORS, shapes, found)
    params = {path: _as_param(path, found[names[path]]) for path in expected}
    return config, flax.traverse_util.unflatten_dict(params)


def _read_config(path: pathlib.Path) -> BertConfig:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        kind = fields.get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a JSON object: {error}") from error
    if kind != "bert":
        raise ValueError(f"{path} has model_type {kind!r}; only 'bert' can be read.")
    positions = fields.get("position_embedding_type", "absolute")
    if positions != "absolute" or fields.get("is_decoder"):
        raise ValueError(
            f"{path} is of a decoder or has position_embedding_type {positions!r}; only encoders "
            "with absolute positions can be read."
        )
    names = [field.name for field in dataclasses.fields(BertConfig)]
    required = [f.name for f in dataclasses.fields(BertConfig) if f.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in fields]:
        raise ValueError(f"{path} lacks {', '.join(missing)}.")
    try:
        return BertConfig(**{name: fields[name] for name in names if name in fields})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    return {_plain(name): tensor for name, tensor in read_safetensors(path).items()}


def _plain(name: str) -> str:
    """A tensor's name without prefix, in the newer spelling."""
    name = name.removeprefix("bert.")
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _tensor_name(path: tuple[str, ...]) -> str:
    """The tensor that holds the parameter at a path of `Bert`."""
    leaf = "bias" if path[-1] == "bias" else "weight"
    if path[0] == "pooler":
        return f"pooler.dense.{leaf}"
    if path[0] == "embeddings":
        return f"embeddings.{EMBEDDINGS[path[1]]}.{leaf}"
    return f"encoder.layer.{path[0].removeprefix('layer_')}.{LAYER[path[1]]}.{leaf}"


def _tensor_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if path[-1] == "kernel" else shape


def _as_param(path: tuple[str, ...], tensor: np.ndarray) -> Float[jax.Array, "..."]:
    tensor = tensor.astype(np.float32)
    return jnp.asarray(tensor.T if path[-1] == "kernel" else tensor)


def _check(
    path: pathlib.Path, expected: dict[str, tuple[int, ...]], found: dict[str, np.ndarray]
) -> None:
    """Fails unless the file has each tensor, with its shape, and no more layers or embeddings."""
    wrong = [
        f"{name}: expected {shape}, found {found[name].shape if name in found else 'nothing'}"
        for name, shape in expected.items()
        if name not in found or found[name].shape != shape
    ]
    wrong += [
        f"{name}: expected nothing, found {tensor.shape}"
        for name, tensor in found.items()
        if name.startswith(("embeddings.", "encoder."))
        and name not in expected
        and not name.endswith(("position_ids", "token_type_ids"))
    ]
    if wrong:
        raise ValueError(
            f"{path} does not hold the BERT of its {CONFIG}; {len(wrong)} tensors differ:\n  "
            + "\n  ".join(wrong)
        )
