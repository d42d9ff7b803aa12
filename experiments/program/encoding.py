"""Sentences as features of an encoder, computed once and kept on the disk."""

import hashlib
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree
from ml_collections import ConfigDict
from rich.progress import track

from experiments.program.fine_tuning import fine_tuned, trimmed
from experiments.program.keeping import Arrays, computed_once
from otrw_jax.data.sources import Dataset
from otrw_jax.data.word_pieces import check_vocabulary, tokenize
from otrw_jax.models.backbones.bert import Bert
from otrw_jax.models.backbones.hugging_face import load_bert
from otrw_jax.models.backbones.minilm import minilm_folder

BATCH = 64
FILES = ("config.json", "model.safetensors", "vocab.txt")
# Fields of the config that decide what features come out; the folder does by its files.
USE = ("pooling", "unit_length", "max_length", "lowercase")
INPUTS = ("train_inputs", "test_inputs")


def encoded(
    dataset: Dataset,
    config: ConfigDict,
    cache: pathlib.Path,
    extra: Int[np.ndarray, "e"],
    seed: int,
) -> Dataset:
    """The data set with features `[n d]` in place of its sentences.

    Of several processes that want the same ones, one computes them, and the others wait. One that
    is interrupted goes on from the last epoch of fine-tuning.

    Args:
        dataset: of sentences.
        config: `encoder` of the run's config: folder (empty for the MiniLM that the extra `minilm`
            installs), pooling, unit_length, max_length, lowercase, and fine_tuning.
        cache: folder where features are kept; named by all that decides them.
        extra: the training sentences on which the encoder is fine-tuned first, if it is.
        seed: of that fine-tuning.

    Raises:
        FileNotFoundError, ModuleNotFoundError: there is no such encoder.
        ValueError: its files do not fit together, or there is nothing to fine-tune it on.
        CheckpointError: the fine-tuned encoder cannot be written beside the features.
    """
    tuned = config.fine_tuning.epochs > 0
    if tuned and not len(extra):
        raise ValueError(
            "the encoder is to be fine-tuned on extra examples, and there are none: set "
            "data.extra_per_class, or encoder.fine_tuning.epochs=0."
        )
    extra = extra if tuned else extra[:0]
    path = cache / f"{_name(dataset, config, extra, seed)}.npz"
    states = path.with_suffix(".tuning")

    def compute(in_order: bool) -> Arrays:
        encode, params = read_encoder(config)
        if tuned:
            params = fine_tuned(
                encode.network,
                params,
                encode.pieces(dataset.train_inputs[extra]),
                dataset.train_labels[extra],
                dataset.num_classes,
                config.fine_tuning,
                seed,
                states if in_order else None,
            )
        return {name: encode(params, getattr(dataset, name)) for name in INPUTS}

    parts = computed_once(path, compute)
    if path.exists():
        shutil.rmtree(states, ignore_errors=True)
    return dataset._replace(**dict[str, Any](parts))


def encoder_name(config: ConfigDict) -> str:
    """The encoder's name: its folder's, or that of the one installed."""
    return pathlib.Path(config.folder).name if config.folder else "all-MiniLM-L6-v2"


class Encoder:
    """From sentences to features.

    Attributes:
        network: the module.
    """

    def __init__(self, network: Bert, vocab: pathlib.Path, config: ConfigDict):
        self.network = network
        self._vocab, self._lowercase = vocab, config.lowercase
        self._longest = min(config.max_length, network.config.max_position_embeddings)
        self._apply = jax.jit(lambda p, x: network.apply({"params": p}, x, train=False))

    def pieces(self, texts: np.ndarray) -> dict[str, np.ndarray]:
        """The sentences as word pieces."""
        return tokenize(texts.tolist(), self._vocab, self._longest, self._lowercase)

    def __call__(self, params: PyTree, texts: np.ndarray) -> Float[np.ndarray, "n d"]:
        """Features of the sentences."""
        pieces = self.pieces(texts)
        # By length, so that a batch is padded to its own longest; rounded, to compile few shapes.
        order = np.argsort(pieces["mask"].sum(1), kind="stable")
        parts = []
        for at in track(range(0, len(order), BATCH), f"encoding {len(texts)} sentences"):
            rows = order[np.minimum(np.arange(at, at + BATCH), len(order) - 1)]
            inputs = jax.tree.map(jnp.asarray, trimmed(pieces, rows))
            parts.append(np.asarray(self._apply(params, inputs)))
        features = np.empty((len(order), parts[0].shape[1]), np.float32)
        features[order] = np.concatenate(parts)[: len(order)]
        return features


def read_encoder(config: ConfigDict) -> tuple[Encoder, PyTree]:
    """The encoder of `encoder` of a run's config, and its parameters."""
    folder = _folder(config)
    bert_config, params = load_bert(folder, config.pooling)
    check_vocabulary(folder / "vocab.txt", bert_config.vocab_size)
    network = Bert(bert_config, pooling=config.pooling, unit_length=config.unit_length)
    return Encoder(network, folder / "vocab.txt", config), params


def _folder(config: ConfigDict) -> pathlib.Path:
    return pathlib.Path(config.folder).expanduser() if config.folder else minilm_folder()


def _name(dataset: Dataset, config: ConfigDict, extra: np.ndarray, seed: int) -> str:
    """A name that changes with the encoder, its use, the sentences, and its fine-tuning."""
    digest, folder = hashlib.sha256(), _folder(config)
    for name in FILES:
        if (folder / name).exists():
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(repr([(name, config[name]) for name in USE]).encode())
    for name in INPUTS:
        digest.update("\0".join(getattr(dataset, name).tolist()).encode())
    if len(extra):
        digest.update(repr(sorted(config.fine_tuning.to_dict().items())).encode())
        digest.update(extra.astype("<i8").tobytes())
        digest.update(dataset.train_labels[extra].astype("<i4").tobytes())
        digest.update(seed.to_bytes(8, "little", signed=True))
    return digest.hexdigest()[:32]
