"""Five seeds trained together against one, and five in turn."""

import dataclasses
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.timing import Effort, interleaved, median_ratio
from experiments.configs.cifar_lt import get_config
from experiments.documents.markdown import number, table
from experiments.program.networks import make_model
from otrw_jax import Examples, TrainingData, erm, flax_model, identity_model
from otrw_jax.data.images import preprocessing
from otrw_jax.models.backbones.mlp import MLP
from otrw_jax.models.heads import LinearHead
from otrw_jax.training.features import pick_copy
from otrw_jax.training.loop import make_loop
from otrw_jax.training.seeds import stack
from otrw_jax.training.stages import DeviceData, Stage

SEEDS, NUM_CLASSES = 5, 10
GOAL = 2.0
"""Of the time of one seed, on a GPU."""


def run(effort: Effort) -> list[dict]:
    """One record for each kind of network."""
    records = []
    for name, (model, inputs, prepare, batch, steps) in _cases(effort).items():
        calls = {
            "one": _epochs(model, inputs, prepare, batch, 0),
            "together": _epochs(model, inputs, prepare, batch, SEEDS),
        }
        few = dataclasses.replace(effort, minimum_seconds=0.0)
        seconds = interleaved(calls, few)
        ratio = median_ratio(seconds["together"], seconds["one"])
        records.append(
            {
                "section": "seeds",
                "name": name,
                "batch_size": batch,
                "steps": steps,
                "seconds": {key: statistics.median(s) for key, s in seconds.items()},
                "repeats": seconds,
                "ratio": ratio,
                "in_turn": SEEDS / ratio,
                "goal": GOAL if jax.default_backend() != "cpu" else None,
            }
        )
    return records


def markdown(records: list[dict]) -> str:
    """The section's title, text and table."""
    rows = [
        [
            r["name"],
            str(r["batch_size"]),
            number(1e3 * r["seconds"]["one"] / r["steps"]),
            number(1e3 * r["seconds"]["together"] / r["steps"]),
            number(r["ratio"]),
            number(r["in_turn"]),
            f"≤ {r['goal']:g}, {'met' if r['ratio'] <= r['goal'] else 'missed'}"
            if r["goal"]
            else "–",
        ]
        for r in records
    ]
    header = ["network", "batch", "one seed, ms a step", f"{SEEDS} together, ms a step"]
    return "\n\n".join(
        [
            "### Seeds together",
            f"Cross-entropy steps of one seed and of {SEEDS} together by `jax.vmap`, each with "
            "data and a network of its own. *In turn / together* is what five in turn would take.",
            table([*header, "together / one", "in turn / together", "goal"], rows),
        ]
    )


def _cases(effort):
    config = get_config()
    rng = np.random.default_rng(0)
    images = preprocessing("cifar10").train
    on_cpu = jax.default_backend() == "cpu"

    def same(keys, x):
        return x

    cases = {
        "MLP of the digits": (
            flax_model(MLP((128, 64)), LinearHead(NUM_CLASSES)),
            rng.random((2048, 64), np.float32),
            same,
            32,
            64,
        ),
        "head on kept features": (
            identity_model(LinearHead(NUM_CLASSES)),
            rng.random((12_288, 5, 64), np.float32),
            pick_copy,
            128,
            96,
        ),
    }
    if effort.largest or not on_cpu:
        steps, batch = (1, 16) if on_cpu else (96, 128)
        pixels = rng.integers(0, 256, (steps * batch, 32, 32, 3), np.uint8)
        model = make_model(config.model, NUM_CLASSES)
        cases["ResNet-32"] = model, pixels, images, batch, steps
    return cases


def _epochs(model, inputs, prepare, batch, seeds):
    labels = jnp.arange(len(inputs)) % NUM_CLASSES
    raw = Examples(jnp.asarray(inputs), labels)
    data = DeviceData(raw, TrainingData(Examples(None, labels), None, NUM_CLASSES))
    stage = Stage("stage1", erm(model, optax.sgd(0.01, momentum=0.9)), 1, batch)
    loop = make_loop(stage, prepare, seeds=seeds)
    keys = jax.random.split(jax.random.key(0), max(seeds, 1))
    example = jax.eval_shape(
        prepare, keys[:1], jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype)
    )
    variables = [model.init(key, jnp.zeros(example.shape, example.dtype)) for key in keys]
    if seeds:
        key, start, data = keys, stack(variables), stack([data] * seeds)
    else:
        key, start = keys[0], variables[0]
    state = [loop.start(key, start, data)]

    def epoch():
        state[0], _ = loop.epoch(state[0], data, key)
        return jax.tree.leaves(state[0])[0]

    return epoch
