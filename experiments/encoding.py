"""Sentences as features of a frozen encoder, computed once and kept on the disk."""

import hashlib
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict
from rich.progress import track

from otrw_jax.backbones.bert import Bert
from otrw_jax.backbones.bert_checkpoint import load_bert
from otrw_jax.backbones.minilm import minilm_folder
from otrw_jax.data.sources import Dataset
from otrw_jax.data.word_pieces import check_vocabulary, tokenize

BATCH = 64


def encoded(dataset: Dataset, config: ConfigDict, cache: pathlib.Path) -> Dataset:
    """The data set with features `[n d]` in place of its sentences.

    Args:
        dataset: of sentences.
        config: `encoder` of the run's config: folder (empty for the MiniLM that the extra `minilm`
            installs), pooling, unit_length, max_length, lowercase.
        cache: folder where features are kept; named by the encoder's and the sentences' content.

    Raises:
        FileNotFoundError, ModuleNotFoundError: there is no such encoder.
        ValueError: its files do not fit together.
    """
    folder = pathlib.Path(config.folder).expanduser() if config.folder else minilm_folder()
    return dataset._replace(
        train_inputs=features_of(dataset.train_inputs, folder, config, cache),
        test_inputs=features_of(dataset.test_inputs, folder, config, cache),
    )


def name_of(config: ConfigDict) -> str:
    """The encoder's name: its folder's, or that of the one installed."""
    return pathlib.Path(config.folder).name if config.folder else "all-MiniLM-L6-v2"


def features_of(
    texts: np.ndarray, folder: pathlib.Path, config: ConfigDict, cache: pathlib.Path
) -> Float[np.ndarray, "n d"]:
    """Features of sentences, from the cache where it has them."""
    path = cache / f"{_name(texts, folder, config)}.npy"
    if path.exists():
        return np.load(path)
    features = _encode(texts, folder, config)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.npy")
    np.save(partial, features)
    os.replace(partial, path)
    return features


def _encode(texts, folder, config):
    bert_config, params = load_bert(folder, config.pooling)
    check_vocabulary(folder / "vocab.txt", bert_config.vocab_size)
    bert = Bert(bert_config, pooling=config.pooling, unit_length=config.unit_length)
    longest = min(config.max_length, bert_config.max_position_embeddings)
    pieces = tokenize(texts.tolist(), folder / "vocab.txt", longest, config.lowercase)
    apply = jax.jit(lambda params, inputs: bert.apply({"params": params}, inputs, train=False))
    # By length, so that a batch is padded to its own longest; rounded, to compile a few shapes.
    order = np.argsort(pieces["mask"].sum(1), kind="stable")
    parts = []
    for at in track(range(0, len(order), BATCH), f"encoding {len(texts)} sentences"):
        rows = order[np.minimum(np.arange(at, at + BATCH), len(order) - 1)]
        used = int(pieces["mask"][rows].sum(1).max())
        width = min(-(-used // 16) * 16, pieces["mask"].shape[1])
        inputs = {name: jnp.asarray(values[rows, :width]) for name, values in pieces.items()}
        parts.append(np.asarray(apply(params, inputs)))
    features = np.empty((len(order), parts[0].shape[1]), np.float32)
    features[order] = np.concatenate(parts)[: len(order)]
    return features


def _name(texts, folder, config) -> str:
    """A name that changes with the encoder, how it is used, and the sentences."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        if (folder / name).exists():
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    use = {name: config[name] for name in ("pooling", "unit_length", "max_length", "lowercase")}
    digest.update(repr(sorted(use.items())).encode())
    digest.update("\0".join(texts.tolist()).encode())
    return digest.hexdigest()[:32]
